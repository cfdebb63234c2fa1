"""All descriptors against the numbers that amptorch gives, through the table that prints them."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import parity
from benchmarks.parity import DERIVATIVES, FEATURES, LIVE_ONLY, SETTINGS, Image, Row

STORED = [setting for setting in SETTINGS if setting not in LIVE_ONLY]


@pytest.fixture(scope="module")
def images(shared: Path) -> list[Image]:
    return list(parity.stored_images(shared / "reference"))


@pytest.fixture(scope="module")
def densities(shared: Path) -> Path:
    return shared / "data" / "GMP" / "valence_gaussians"


@pytest.mark.parametrize("setting", STORED)
def test_features_and_derivatives_agree_with_amptorch(images: list[Image], densities: Path, setting: str) -> None:
    chosen = [image for image in images if image.setting == setting]
    (row,) = parity.compare(chosen, densities, "stored")
    assert row.images == (5 if setting in parity.SYMMETRY else 10)
    assert row.features <= FEATURES
    assert (row.derivatives is None) == (setting == "gmpordernorm_default_cutoff")
    assert row.derivatives is None or row.derivatives <= DERIVATIVES
    assert row.agrees


def test_every_setting_of_the_reference_is_compared(images: list[Image]) -> None:
    assert {image.setting for image in images} == set(STORED)


@pytest.mark.parametrize("setting", STORED)
def test_a_deviation_is_seen(images: list[Image], densities: Path, setting: str) -> None:
    image = next(i for i in images if i.setting == setting and (i.derivatives is not None or "default" in setting))
    largest = int(np.abs(image.features).max(axis=0).argmax())
    features = image.features.copy()
    features[0, largest] += 1e-5 * np.abs(features[:, largest]).max()
    assert not parity.compare([replace(image, features=features)], densities, "stored")[0].agrees
    if image.derivatives is not None:
        derivatives = image.derivatives * (1 + 1e-4)
        assert not parity.compare([replace(image, derivatives=derivatives)], densities, "stored")[0].agrees


def test_the_table_says_how_far_and_from_what() -> None:
    rows = [Row("gmp_order3", "stored", 10, 3e-9, 2.5e-8, ""), Row("sf_cosine", "live", 2, 0.5, None, "two molecules")]
    lines = parity.table(rows).splitlines()
    assert lines[1].split() == ["gmp_order3", "stored", "10", "3.0e-09", "2.5e-08"]
    assert lines[2].split(maxsplit=4) == ["sf_cosine", "live", "2", "5.0e-01", "BEYOND THE TOLERANCE; two molecules"]


def test_the_command_prints_all_settings(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.main(["--reference", str(shared / "reference")]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{setting} " in printed for setting in STORED)
    assert "BEYOND" not in printed


def test_without_reference_values_the_error_names_the_file_and_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parity.main(["--reference", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"error: no reference values: {tmp_path / 'gmp.npz'} is not there; give their folder with --reference\n"
    )


def test_where_amptorch_is_installed_it_is_run(
    shared: Path, images: list[Image], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        @staticmethod
        def run(setting: str, atoms: Any, densities: Path) -> tuple[np.ndarray, np.ndarray]:
            image = Image(setting, atoms, np.zeros(0), np.zeros(0))
            features, sparse = parity.our_descriptor(setting, image, densities).sparse_derivatives(atoms)
            return features, 2 * sparse.dense(len(atoms)) if setting == "sf_cosine" else sparse.dense(len(atoms))

    monkeypatch.setitem(sys.modules, "benchmarks.run_amptorch", Installed)  # type: ignore[arg-type]
    assert parity.main(["--reference", str(shared / "reference")]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines if line[1] == "live"] == SETTINGS
    assert [line[0] for line in lines if "BEYOND" in line] == ["sf_cosine"]
