"""Predictions against the long way: all derivatives, torch's operations, and the chain rule in numpy."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from numpy.typing import NDArray

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import Descriptor, GMPGroups, SymmetryFunctions
from bdqm_tune.learning.calculator import make_calculator
from bdqm_tune.learning.ensemble import Ensemble
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network
from bdqm_tune.learning.scalers import fit_scaler
from tests.learning.test_potential import NETWORKS, examples_of_all_kinds, random_potential

ANGLES = {"etas": [0.01], "zetas": [1.0, 2.0], "gammas": [-1.0, 1.0]}
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def descriptor(family: str) -> Descriptor:
    gmp = random_potential().descriptor
    if family == "gmp":
        return gmp
    if family == "gmp_groups":
        return GMPGroups({0: [1], 1: [1], 2: [1, 2]}, [0.5, 1.0], 4.3, False, pseudodensities=gmp.table)  # type: ignore[attr-defined]
    return SymmetryFunctions(["H", "O", "Cu", "Au"], 4.3, {"etas": [0.05, 4.0], "rs": [0.0]}, ANGLES, ANGLES)


def potential_with(family: str, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any) -> NetworkPotential:
    """A potential with random weights, whose scaler is that of a training."""
    own = descriptor(family)
    features = np.concatenate([own.compute(atoms) for atoms in examples_of_all_kinds()])
    numbers = np.concatenate([atoms.numbers for atoms in examples_of_all_kinds()])
    scaler = fit_scaler(lambda: [(features, numbers)], "whiten", per_element=family == "gmp_groups", axis_floor=0.1)
    torch.manual_seed(seed)
    chosen = Hyperparameters(**{"initialization": "xavier", "hidden_layers": [7, 5], **options})
    network = make_network(own.n_features, chosen, [1, 8, 29]).to(dtype).eval()
    changed = {"descriptor": own, "scaler": scaler, "hyperparameters": chosen, "network": network}
    return dataclasses.replace(random_potential(), **changed)


def the_long_way(potential: NetworkPotential, atoms: Atoms) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Energy, forces, and stress times volume."""
    features, derivatives = potential.descriptor.sparse_derivatives(atoms)
    inputs = potential.scaler(features, atoms.numbers)
    x = torch.tensor(inputs, dtype=next(potential.network.parameters()).dtype, requires_grad=True)
    outputs = potential.network(x, torch.as_tensor(atoms.numbers))
    (gradient,) = torch.autograd.grad(outputs.sum(), x)
    by_features = potential.scale * potential.scaler.by_features(gradient.double().numpy(), features, atoms.numbers)
    energy = potential.shift + potential.references.of([atoms])[0] + potential.scale * outputs.double().sum().item()
    forces = -np.einsum("if,ifjx->jx", by_features, derivatives.dense(len(atoms)))
    _, images = potential.descriptor.sparse_derivatives(atoms, images=True)
    assert images.vector is not None
    by_strain = np.einsum("ef,efa,eb->ab", by_features[images.centre], images.values, images.vector)
    return energy, forces, np.array([by_strain[a, b] + by_strain[b, a] for a, b in VOIGT]) / 2


@pytest.mark.parametrize("family", ["gmp", "gmp_groups", "symmetry_functions"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_potential_predicts_what_the_long_way_gives(
    family: str, network: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    made = potential_with(family, dtype, **({"hidden_layers": None} | NETWORKS[network]))
    made.save(tmp_path)
    loaded, close = NetworkPotential.load(tmp_path), 1e-11 if dtype == torch.float64 else 1e-5
    for atoms in examples_of_all_kinds():
        energy, forces, virial = the_long_way(made, atoms)
        for potential in (made, loaded):
            found = potential.results(atoms)
            assert found["energy"] == pytest.approx(energy, rel=0, abs=close)
            np.testing.assert_allclose(found["forces"], forces, rtol=0, atol=close * max(1.0, np.abs(forces).max()))
            assert ("stress" in found) == atoms.pbc.any() == (atoms.cell.rank == 3)
            if "stress" in found:
                scale = max(1.0, np.abs(virial).max())
                np.testing.assert_allclose(found["stress"] * atoms.get_volume(), virial, rtol=0, atol=close * scale)
            (alone,) = potential.predict([atoms], forces=False).energies
            assert alone == pytest.approx(energy, rel=0, abs=close)


def test_an_ensemble_predicts_what_the_long_way_gives() -> None:
    """Members share descriptors in part, whose derivatives are contracted with the gradients of several at once."""
    members = {
        "a": potential_with("gmp", seed=1),
        "b": potential_with("symmetry_functions", seed=2, network="per_element"),
        "c": potential_with("gmp", seed=3, hidden_layers=[4]),
        "d": potential_with("symmetry_functions", seed=4, batchnorm=True),
    }
    ensemble = Ensemble(members)
    assert len(ensemble.by_descriptor) == 2
    for atoms in examples_of_all_kinds():
        energies, forces, virials = zip(*(the_long_way(each, atoms) for each in members.values()), strict=True)
        found = ensemble.results(atoms)
        assert found["energy"] == pytest.approx(np.mean(energies), rel=1e-11)
        assert found["energy_std"] == pytest.approx(np.std(energies, ddof=1), rel=1e-9)
        np.testing.assert_allclose(found["forces"], np.mean(forces, axis=0), atol=1e-10)
        np.testing.assert_allclose(found["forces_std"], np.std(forces, axis=0, ddof=1), atol=1e-10)
        if atoms.pbc.any():
            atoms.calc = make_calculator(ensemble)
            volume = atoms.get_volume()
            np.testing.assert_allclose(atoms.get_stress() * volume, np.mean(virials, axis=0), atol=1e-9)
