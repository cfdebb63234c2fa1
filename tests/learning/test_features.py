"""Which device computes features: a GPU that is named and is there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from bdqm_tune.config.descriptor_options import DescriptorOptions
from bdqm_tune.descriptors import GMP
from bdqm_tune.learning import features
from bdqm_tune.learning.features import StructureFeatures
from bdqm_tune.structures.read import from_atoms

OPTIONS = DescriptorOptions(orders=[0, 1], sigmas=[0.5, 1.0], cutoff=4.1)


@pytest.mark.parametrize(
    ("device", "there", "on"),
    [
        ("cuda", True, ["cuda"]),
        ("cuda:1", True, ["cuda:1"]),
        ("cuda", False, []),
        ("auto", True, []),
        ("cpu", True, []),
    ],
)
def test_a_gpu_that_is_named_and_is_there_computes_features(
    device: str,
    there: bool,
    on: list[str],
    alloys: Callable[..., list[Atoms]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, go = list[str](), GMP.on
    # In the place of the GPU, torch on the CPU.
    monkeypatch.setattr(GMP, "on", lambda self, name: asked.append(name) or go(self, "cpu"))
    monkeypatch.setattr(features, "_is_here", lambda _: there)
    made = StructureFeatures(from_atoms(alloys(3), "alloys"), OPTIONS, tmp_path, False, device)
    np.testing.assert_allclose(
        np.asarray(made.features),
        np.concatenate([made.descriptor.compute(atoms) for atoms in made.structures.atoms]),
        rtol=1e-10,
    )
    assert asked == on
    assert made.with_options(OPTIONS.model_copy(update={"orders": [0]})).features.shape[1] == 2
    assert asked == on * 2


def test_a_gpu_that_is_not_there_is_left_to_whoever_trains_on_it(
    alloys: Callable[..., list[Atoms]], tmp_path: Path
) -> None:
    made = StructureFeatures(from_atoms(alloys(2), "alloys"), OPTIONS, tmp_path, False, "cuda:99")
    expected = np.concatenate([made.descriptor.compute(atoms) for atoms in made.structures.atoms])
    assert np.array_equal(np.asarray(made.features), expected)
