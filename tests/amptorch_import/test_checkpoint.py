"""Checkpoints of amptorch predict what amptorch says, saved and loaded too; and nothing in them is run."""

import io
import os
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

import bdqm_tune as bt
from bdqm_tune.amptorch_import import checkpoint
from bdqm_tune.amptorch_import.torch_files import read_torch_file
from bdqm_tune.errors import BadInput
from bdqm_tune.learning.network_potential import NetworkPotential

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
    for model in (potential, NetworkPotential.load(tmp_path / "model")):
        assert model.trained_on_forces is ("forces" in expected)
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


def test_the_order_in_which_elements_were_given_does_not_matter(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """amptorch pairs the elements as given, and sorts the pairs: its columns stand elsewhere for another order."""
    folder = shared / "reference" / "amptorch_checkpoints" / "bpnn_gaussian"
    files = {name: read_torch_file(folder / name) for name in checkpoint.FILES}
    given, other = [6, 29, 8], [8, 29, 6]  # C Cu O, O Cu C

    def functions(elements: list[int]) -> list[tuple[Any, ...]]:
        g2 = sorted((2, j, eta) for j in elements for eta in range(4))
        pairs = [(elements[i], elements[j]) for i in range(3) for j in range(i, 3)]
        g4 = sorted((4, *pair, zeta, gamma) for pair in pairs for zeta in (1, 4) for gamma in (-1, 1))
        return [*g2, *((4, *sorted(pair), zeta, gamma) for _, *pair, zeta, gamma in g4)]

    columns = [functions(given).index(function) for function in functions(other)]
    assert columns != sorted(columns)
    weights, config, normalizers = files.values()
    config["dataset"]["descriptor"] = (*config["dataset"]["descriptor"][:3], ["O", "Cu", "C"])
    moved = {}
    for name, value in weights.items():
        if name == checkpoint.MASK:
            moved[name] = value[:, ::-1].copy()
            continue
        value = value[:, columns] if name.endswith("model_net.0.weight") else value
        _, k, rest = name.split(".", 2)
        moved[f"elementwise_models.{2 - int(k)}.{rest}"] = value
    for scale in normalizers["feature"].attributes["scales"].values():
        scale.update({key: values[columns] for key, values in scale.items()})
    monkeypatch.setattr(
        checkpoint,
        "read_torch_file",
        lambda path: dict(zip(files, (moved, config, normalizers), strict=True))[path.name],
    )
    expected = np.load(folder / "predictions.npz")
    found = bt.load_amptorch_checkpoint(folder).predict([cuco(distance) for distance in expected["distances"]])
    np.testing.assert_allclose(found.energies, expected["energies"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.stack(found.forces or []), expected["forces"], rtol=0, atol=1e-6)


def test_pseudodensities_are_found_beside_the_checkpoint_or_asked_for(shared: Path, tmp_path: Path) -> None:
    folder = shared / "reference" / "amptorch_checkpoints" / NAMES[2]
    assert bt.load_amptorch_checkpoint(folder).descriptor.n_features == 20
    elsewhere = shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(BadInput, match=r"pseudo-density of C .* data/GMP/.*C_pseudodensity_4\.g.*--pseudodensities"):
        bt.load_amptorch_checkpoint(elsewhere)


def test_features_that_amptorch_got_wrong_are_warned_of(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared / "reference" / "amptorch_checkpoints" / NAMES[2]
    files = {name: read_torch_file(folder / name) for name in checkpoint.FILES}
    params = files["config.pt"]["dataset"]["descriptor"][1]
    monkeypatch.setattr(checkpoint, "read_torch_file", lambda path: files[path.name])
    for orders, forces, wrong in (
        ([0, 1, 2, 3], False, ""),
        ([0, 1, 2, 9], True, ""),
        ([0, 1, 2, 9], False, "order 9"),
    ):
        params["MCSHs"]["orders"] = orders
        files["config.pt"]["model"]["get_forces"] = forces
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            bt.load_amptorch_checkpoint(folder)
        said = [str(warning.message) for warning in caught]
        assert [f"computes {wrong}" in text for text in said] == ([True] if wrong else []), (orders, forces)


@pytest.mark.parametrize(
    "content",
    [
        b"cposix\nsystem\n(Vtouch mark\ntR.",  # called
        b"(Vtouch mark\niposix\nsystem\n.",  # as an instance
        b"cposix\nsystem\n.",  # only named
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0atouch mark\x85R.",  # protocol 4
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(cposix\nsystem\ntR.",  # within what is admitted
    ],
)
def test_every_way_to_name_a_function_is_refused_by_its_name(workdir: Path, content: bytes) -> None:
    with pytest.raises(BadInput, match=r"refused, for it names posix\.system"):
        read_torch_file(torch_file(workdir / "file.pt", content))
    assert not (workdir / "mark").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02ctorch.nn.modules.activation\nTanh\n)R.",  # an activation made, and not only named
        b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00O8K\x00K\x01tR.",  # objects
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00))tR.",  # a tensor without numbers
        b"\x80\x02ccollections\nOrderedDict\n}X\x05\x00\x00\x00itemsK\x01sb.",  # a class that is to be changed
        b"\x80\x02]q\x00h\x00a.",  # a list within itself
        b"",
    ],
)
def test_what_is_no_data_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BadInput, match=r"file\.pt: "):
        read_torch_file(torch_file(tmp_path / "file.pt", content))
