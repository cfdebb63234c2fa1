"""The published amptorch, number by number: with its weights, our features, scalers and forces give its predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from numpy.typing import NDArray

from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors import GMP, Descriptor, SymmetryFunctions
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import AtomicNetwork, PerElementNN, make_network
from bdqm_tune.learning.scalers import fit_scaler
from bdqm_tune.learning.targets import NO_REFERENCES, target_scale_and_shift

MODELS = {
    "singlenn_gmpordernorm": Hyperparameters(hidden_layers=[20, 20, 20], activation="tanh"),
    "singlenn_batchnorm": Hyperparameters(hidden_layers=[12, 12, 12], activation="gelu", batchnorm=True),
    "bpnn_gaussian": Hyperparameters(hidden_layers=[5, 5, 5], activation="tanh", network="per_element"),
}
ELEMENTS = {6: "C", 29: "Cu", 8: "O"}  # in the order of amptorch's networks


class MixedNN(AtomicNetwork):
    """amptorch trains the mask that picks a network for an element, so that every network has a share in every atom."""

    def __init__(self, network: PerElementNN, mask: NDArray[np.float64]) -> None:
        super().__init__()
        self.network, self.mask = network, torch.as_tensor(mask)  # (n_numbers, n_networks)

    def forward(self, features: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        outputs = [network(features) for network in self.network.networks.values()]
        # The networks stand by atomic number here, in the order of the symbols there.
        shares = self.mask[:, [list(ELEMENTS).index(z) for z in self.network.elements]]
        return (shares[numbers] * torch.cat(outputs, dim=1)).sum(dim=1, keepdim=True)


def descriptor_of(name: str, shared: Path) -> Descriptor:
    if name == "bpnn_gaussian":
        g2 = {"etas": np.geomspace(0.05, 5, 4).tolist(), "rs": [0.0]}
        g4 = {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]}
        return SymmetryFunctions(["C", "Cu", "O"], 6.0, g2, g4)
    table = shared / "data/GMP/valence_gaussians"
    # amptorch drops derivatives below 1e-5 per Å, before it scales them: its forces are off by up to a tenth there.
    options = {"pseudodensities": table, "derivative_floor": 1e-5, "smooth_cutoff": False}
    return GMP([0, 1, 2, 3], [0.4, 0.8, 1.2, 1.6, 2.0], 6.0, **options)


def name_of_weight(name: str) -> str:
    """What a weight of amptorch is called here."""
    for k, symbol in enumerate(ELEMENTS.values()):
        name = name.replace(f"elementwise_models.{k}.model_net", f"networks.{symbol}")
    return name.removeprefix("weights/").removeprefix("model.model_net.")


def cuco(distance: float) -> Atoms:
    """One of the images that amptorch was given."""
    x, y = distance * np.sin(0.65), distance * np.cos(0.65)
    atoms = Atoms("CuCO", [[-x, y, 0], [0, 0, 0], [x, y, 0]], cell=[10, 10, 10])
    atoms.wrap(pbc=True)
    return atoms


@pytest.mark.parametrize("name", MODELS)
def test_with_its_weights_amptorchs_predictions_come_out(shared: Path, name: str) -> None:
    images, energies = [cuco(d) for d in np.linspace(2, 5, 40)], []
    for atoms in images:
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    scale, shift = target_scale_and_shift(np.array(energies), "mean_deviation")
    descriptor = descriptor_of(name, shared)
    features = np.concatenate([descriptor.compute(atoms) for atoms in images])
    numbers = np.concatenate([atoms.numbers for atoms in images])
    scaler = fit_scaler(lambda: [(features, numbers)], "normalise", per_element=name == "bpnn_gaussian")

    network = make_network(descriptor.n_features, MODELS[name], list(ELEMENTS)).double()
    reference = np.load(shared / f"reference/amptorch_checkpoints/{name}/predictions.npz")
    kept = [key for key in reference if key.startswith("weights/") and "mask" not in key]
    network.load_state_dict({name_of_weight(key): torch.as_tensor(reference[key]) for key in kept})
    if isinstance(network, PerElementNN):
        network = MixedNN(network, reference["weights/element_mask.mask.weight"])
    potential = NetworkPotential(descriptor, scaler, NO_REFERENCES, scale, MODELS[name], network.eval(), shift)
    predicted = potential.predict([cuco(d) for d in reference["distances"]])
    np.testing.assert_allclose(predicted.energies, reference["energies"], atol=2e-6)
    if "forces" in reference:
        np.testing.assert_allclose(predicted.forces, reference["forces"], atol=2e-5)
