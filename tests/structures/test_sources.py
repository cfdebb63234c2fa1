"""One or several files, slices, folders and patterns are read as one, in the order in which they are named."""

from pathlib import Path

import ase.io
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from bdqm_tune.errors import BadInput
from bdqm_tune.structures import digest, read_structures
from bdqm_tune.structures.sources import absolute, find_sources


def write(path: Path, energies: list[float]) -> None:
    images = [Atoms("Cu", cell=[5 + 0.01 * abs(energy)] * 3, pbc=True) for energy in energies]
    for atoms, energy in zip(images, energies, strict=True):
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    path.parent.mkdir(exist_ok=True)
    ase.io.write(path, images)


@pytest.fixture
def files(workdir: Path) -> Path:
    write(workdir / "a.traj", [0, 1, 2, 3])
    write(workdir / "b.xyz", [10, 11])
    write(workdir / "runs" / "2.traj", [20, 21, 22])
    write(workdir / "runs" / "1.xyz", [30, 31, 32])
    write(workdir / "runs" / ".hidden.traj", [99])
    write(workdir / "c.db", [40, 41, 42, 43])
    write(workdir / "d,e.traj", [50])
    write(workdir / "f@1.traj", [60, 61])
    return workdir


CASES = {
    "a.traj": [0, 1, 2, 3],
    "a.traj,b.xyz": [0, 1, 2, 3, 10, 11],
    "b.xyz, a.traj": [10, 11, 0, 1, 2, 3],
    "a.traj@::2": [0, 2],
    "a.traj@1:": [1, 2, 3],
    "a.traj@:1": [0],
    "a.traj@:": [0, 1, 2, 3],
    "a.traj@-2:": [2, 3],
    "a.traj@2": [2],
    "a.traj@-1": [3],
    "a.traj@::-1": [3, 2, 1, 0],
    "a.traj@0,b.xyz@1": [0, 11],
    "a.traj@:2,a.traj@3:": [0, 1, 3],
    "c.db@1::2": [41, 43],
    "c.db@-1": [43],
    "runs": [30, 31, 32, 20, 21, 22],
    "runs@:1": [30, 20],
    "runs/*.traj": [20, 21, 22],
    "*/[12].*@::2": [30, 32, 20, 22],
    "d,e.traj": [50],
    "d,e.traj@0": None,
    "f@1.traj": [60, 61],
    "f@1.traj@1": [61],
}


def test_what_is_named_is_read_in_order(files: Path) -> None:
    wrong = {}
    for given, expected in CASES.items():
        try:
            read = read_structures(given)
            found = (read.energies.tolist(), read.source, read.images.tolist())
        except BadInput as error:
            found = str(error)  # type: ignore[assignment]
        if expected is None:
            ok = "no such file" in found
        else:
            ok = found == ([float(energy) for energy in expected], given, list(range(len(expected))))
        if not ok:
            wrong[given] = found
    assert not wrong
    several = read_structures(["a.traj@1", "d,e.traj", Path("b.xyz")])
    assert (several.energies.tolist(), several.source) == ([1.0, 50.0, 10.0, 11.0], "a.traj@1, d,e.traj, b.xyz")
    assert digest(read_structures(["a.traj@:2", "a.traj@2:"])) == digest(read_structures("a.traj"))


def test_what_names_nothing_is_refused(files: Path) -> None:
    (files / "empty").mkdir()
    cases = {
        "z.traj": "z.traj: no such file",
        "a.traj,z.traj": "z.traj: no such file",
        "z.traj@:5": "z.traj: no such file",
        "a.traj,": "nothing is named between two commas",
        "z/*.traj": "z/*.traj: no file fits this pattern",
        "empty": "empty: is a folder without files",
        "a.traj@7:": "a.traj: no structures in it at this index",
        "a.traj@9": "a.traj: no structures in it at this index",
        "a.traj@::0": "the step of an index",
        "a.traj,a.traj": "names image 0 of a.traj twice",
        "a.traj@:3,./a.traj@2:": "names image 2 of ./a.traj twice",
        "*.traj,a.traj": "names image 0 of a.traj twice",
    }
    wrong = {}
    for given, expected in cases.items():
        with pytest.raises(BadInput) as caught:
            read_structures(given)
        if expected not in str(caught.value):
            wrong[given] = str(caught.value)
    assert not wrong


def test_a_fault_is_named_by_its_own_file_and_image(files: Path) -> None:
    broken = [Atoms("Cu"), Atoms("Cu")]
    broken[0].calc = SinglePointCalculator(broken[0], energy=1.0)
    ase.io.write("broken.traj", broken)
    for given, expected in {
        "a.traj,broken.traj": "broken.traj, image 1: has no energy",
        "a.traj,broken.traj@1:": "broken.traj, image 1: has no energy",
        "broken.traj@::-1": "broken.traj, image 1: has no energy",
    }.items():
        with pytest.raises(BadInput) as caught:
            read_structures(given)
        assert str(caught.value).startswith(expected)


def test_absolute_paths_name_the_same(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["a.traj@:2,runs/*.xyz", "runs/2.traj@0"]
    named, paths = find_sources(given), absolute(given)
    monkeypatch.chdir("/")
    elsewhere = find_sources(paths)
    assert [str(files / source.path) for source in named] == [source.path for source in elsewhere]
    assert [source.images for source in named] == [source.images for source in elsewhere]
