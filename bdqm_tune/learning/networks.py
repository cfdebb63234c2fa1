"""SingleNN: the same small network for every atom, whose outputs add up to the energy of a structure."""

import torch
from torch import nn

from bdqm_tune.hyperparameters import Hyperparameters

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class SingleNN(nn.Sequential):
    """Scaled features (n_atoms, n_features) → contributions to the scaled energy (n_atoms, 1)."""

    def __init__(self, n_features: int, hyperparameters: Hyperparameters) -> None:
        layers: list[nn.Module] = []
        width = n_features
        for _ in range(hyperparameters.num_layers):
            layers.append(nn.Linear(width, hyperparameters.num_nodes))
            width = hyperparameters.num_nodes
            if hyperparameters.batchnorm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(ACTIVATIONS[hyperparameters.activation]())
            if hyperparameters.dropout:
                layers.append(nn.Dropout(hyperparameters.dropout_rate))
        output = nn.Linear(width, 1)
        super().__init__(*layers, output)
        if hyperparameters.initialization != "default":
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_uniform_(layer.weight)
                    nn.init.zeros_(layer.bias)
        if hyperparameters.initialization == "zero":
            nn.init.zeros_(output.weight)

    @property
    def n_parameters(self) -> int:
        """Trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def sum_per_structure(contributions: torch.Tensor, structure: torch.Tensor, n_structures: int) -> torch.Tensor:
    """Sums (n_structures,) of the atoms' contributions (n_atoms, 1); `structure` (n_atoms,) says whose each is."""
    return contributions.new_zeros(n_structures).index_add_(0, structure, contributions[:, 0])
