"""Checkpoints of amptorch predict what amptorch says, saved and loaded too; and nothing in them is run."""

import io
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

import bdqm_tune as bt
from bdqm_tune.amptorch_import.torch_files import read_torch_file
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.potential import Potential

NAMES = ["bpnn_gaussian", "singlenn_batchnorm", "singlenn_gmpordernorm"]


def cuco(distance: float) -> Atoms:
    """Cu, C and O, as the reference folder describes them."""
    x, y = distance * np.sin(0.65), distance * np.cos(0.65)
    atoms = Atoms("CuCO", [(-x, y, 0), (0, 0, 0), (x, y, 0)], cell=[10] * 3)
    atoms.wrap(pbc=True)
    return atoms


@pytest.mark.parametrize("name", NAMES)
def test_it_predicts_what_amptorch_predicts(shared: Path, tmp_path: Path, name: str) -> None:
    folder = shared / "reference" / "amptorch_checkpoints" / name
    potential = bt.load_amptorch_checkpoint(folder, shared / "data" / "GMP" / "valence_gaussians")
    expected = np.load(folder / "predictions.npz")
    images = [cuco(distance) for distance in expected["distances"]]
    potential.save(tmp_path / "model")
    for model in (potential, Potential.load(tmp_path / "model")):
        found = model.predict(images)
        np.testing.assert_allclose(found.energies, expected["energies"], rtol=0, atol=1e-6)
        assert found.forces is not None
        if "forces" in expected:
            np.testing.assert_allclose(np.stack(found.forces), expected["forces"], rtol=0, atol=1e-6)


def test_exact_forces_are_the_derivatives_of_the_energy(shared: Path) -> None:
    folder = shared / "reference" / "amptorch_checkpoints" / "singlenn_gmpordernorm"
    densities = shared / "data" / "GMP" / "valence_gaussians"
    potential = bt.load_amptorch_checkpoint(folder, densities, exact_forces=True)
    atoms = cuco(2.5)
    (forces,) = potential.predict([atoms]).forces or []
    for axis in range(2):
        energies = []
        for step in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.positions[0, axis] += step
            energies.append(potential.predict([moved], forces=False).energies[0])
        assert forces[0, axis] == pytest.approx(-(energies[0] - energies[1]) / 2e-4, abs=1e-5)


def test_a_folder_that_is_none_is_told(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"no checkpoint of amptorch, params\.pt, config\.pt, normalizers\.pt is missing"
    ):
        bt.load_amptorch_checkpoint(tmp_path)
    folder = shutil.copytree(shared / "reference" / "amptorch_checkpoints" / NAMES[2], tmp_path / "copy")
    (folder / "params.pt").write_bytes((folder / "params.pt").read_bytes()[:300])
    with pytest.raises(BadInput, match=r"params\.pt: "):
        bt.load_amptorch_checkpoint(folder, shared / "data" / "GMP" / "valence_gaussians")


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def torch_file(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", content)
    return path


@pytest.mark.parametrize(
    ("evil", "name"),
    [
        (lambda mark: Evil(os.system, f"touch {mark}"), r"(posix|os)\.system"),
        (lambda mark: Evil(eval, f"open({str(mark)!r}, 'w')"), r"builtins\.eval"),
        (lambda mark: Evil(getattr, os, "system"), r"builtins\.getattr|not a pickle"),
        (lambda mark: Evil(torch.nn.Linear, 1, 1), r"torch\.nn\.modules\.linear\.Linear"),
        (lambda mark: {"deep": [Evil(Path, str(mark))]}, r"pathlib\.\w+"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_is_run_and_what_is_refused_is_named(tmp_path: Path, evil: Any, name: str, legacy: bool) -> None:
    mark = tmp_path / "mark"
    try:
        content = pickle.dumps(evil(mark))
    except TypeError:  # modules cannot be pickled
        content = b"cbuiltins\ngetattr\n(cos\nsystem\nVx\ntR."
    path = tmp_path / "file.pt"
    if legacy:
        path.write_bytes(content)
    else:
        torch_file(path, content)
    with pytest.raises(BadInput, match=rf"{name}"):
        read_torch_file(path)
    assert not mark.exists()


def test_tensors_and_plain_values_are_read_as_torch_wrote_them(tmp_path: Path) -> None:
    content = {
        "a": torch.arange(12, dtype=torch.float64).reshape(3, 4).T,
        "b": [1, 2.5, "text", None, (True, {3})],
        "c": np.linspace(0, 1, 5),
        "d": np.float64(2.5),
    }
    for legacy in (False, True):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
        (tmp_path / "file.pt").write_bytes(buffer.getvalue())
        found = read_torch_file(tmp_path / "file.pt")
        np.testing.assert_array_equal(found["a"], content["a"])  # type: ignore[call-overload]
        assert found["b"] == content["b"]
        np.testing.assert_array_equal(found["c"], content["c"])  # type: ignore[call-overload]
        assert found["d"] == 2.5
