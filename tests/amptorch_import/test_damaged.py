"""Configurations and checkpoints of amptorch, cut off or changed: refused by name, or read; nothing of them is run."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bdqm_tune.amptorch_import import read_config, translate
from bdqm_tune.amptorch_import.torch_files import read_torch_file
from bdqm_tune.errors import BadInput
from tests.fuzzing import bounded, damaged, is_one_line, refused

CONFIG = b"""{"model": {"get_forces": True, "num_layers": 3, "num_nodes": 5, "activation": torch.nn.Tanh},
"optim": {"lr": 1e-3, "batch_size": 16, "epochs": 10, "loss": "mae"},
"dataset": {"raw_data": "train.traj", "fp_scheme": "gmpordernorm",
"fp_params": {"MCSHs": {"orders": [0, 1], "sigmas": [0.5]},
"atom_gaussians": {"Cu": "Cu.g"}, "cutoff": 6.0, "solid_harmonics": True, "square": False}, "val_split": 0.1},
"cmd": {"seed": 1, "identifier": "x", "dtype": "torch.DoubleTensor"}}
"""


def saved(legacy: bool) -> bytes:
    file = io.BytesIO()
    state = {"weight": torch.arange(12.0).reshape(3, 4), "names": ["a", 1, 2.5, None], "flag": True}
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


@given(content=damaged(CONFIG) | st.text(max_size=60).map(str.encode))
@bounded(120)
def test_a_damaged_configuration_is_named_or_translated(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.py"
    path.write_bytes(content)
    try:
        translation: Any = translate(read_config(path))
    except BadInput as error:
        message = str(error)
    else:
        message = "translated"
        assert isinstance(translation.options, dict)
    assert is_one_line(message)


def test_the_undamaged_configuration_is_translated(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_bytes(CONFIG)
    assert translate(read_config(tmp_path / "config.py")).options["search"]["num_nodes"] == 5


@pytest.mark.parametrize("legacy", [False, True])
def test_a_damaged_file_of_torch_is_named_or_read(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "params.pt"

    @given(content=damaged(saved(legacy)))
    @bounded(120)
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            found = read_torch_file(path)
        except BadInput as error:
            message = str(error)
        else:
            message = f"{path}: read"
            assert not callable(found)
        assert message.startswith(str(path))
        assert is_one_line(message)

    check()
    path.write_bytes(saved(legacy))
    assert read_torch_file(path)["names"] == ["a", 1, 2.5, None]


def test_a_small_file_does_not_become_a_huge_one(tmp_path: Path) -> None:
    path = tmp_path / "params.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(50_000_000))
    assert "compressed" in refused(lambda: read_torch_file(path))


@pytest.mark.parametrize(
    "text", ["(" * 3000, "[" * 100_000, "-" * 100_000 + "1", "1" * 100_000, "{" * 500 + "}" * 500, "9**9**9**9"]
)
def test_a_configuration_without_end_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.py").write_text(text)
    assert "config.py" in refused(lambda: translate(read_config(tmp_path / "config.py")))
