"""Gaussian multipole moments with torch's operations, on any device: as `moment_kernels`, many atoms at once."""

import numpy as np
import torch
from numpy.typing import NDArray

from bdqm_tune.descriptors.harmonics import factors
from bdqm_tune.descriptors.moments import Channels, Probes
from bdqm_tune.descriptors.neighbours import Neighbours
from bdqm_tune.descriptors.smooth_cutoff import polynomial

BYTES_AT_ONCE = 2**28  # that the radial functions of some atoms take; a piece of the work takes a few times as much
NO_NEIGHBOUR = -1  # in the place of an element where an atom has fewer neighbours than another


def moments(
    neighbours: Neighbours,
    species: NDArray[np.int64],
    channels: Channels,
    probes: Probes,
    device: torch.device,
    smooth_to: float | None = None,
) -> torch.Tensor:
    """mu (n_moments, n_atoms, n_sigmas), float64, on the device.

    Args:
        species: (n_atoms,) index of each atom's element in the tables of `probes`.
        smooth_to: the cutoff, Å, at which the weight of a neighbour vanishes (`smooth_cutoff`); None: all count 1.
    """
    n_atoms, n_sigmas = len(species), probes.decay.shape[1]
    vectors, elements = _in_rows(neighbours, species)
    found = torch.empty((int(np.sum(2 * channels.l + 1)), n_atoms, n_sigmas), dtype=torch.float64, device=device)
    weight, decay = (torch.from_numpy(table).to(device) for table in (probes.weight, probes.decay))
    bytes_an_atom = vectors.shape[1] * n_sigmas * (len(channels.l) + len(channels.sources)) * 8
    at_once = max(1, BYTES_AT_ONCE // bytes_an_atom)
    for first in range(0, n_atoms, at_once):
        some = slice(first, first + at_once)
        here = torch.from_numpy(vectors[some]).to(device)
        sums = _sums(here.square().sum(-1), elements[some], weight, decay, probes.gaussians)
        _fill(here, sums, channels, smooth_to, found[:, some])
    return found


def _in_rows(neighbours: Neighbours, species: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The vectors (n_atoms, most, 3), Å, to each atom itself and its neighbours, and their elements (n_atoms, most)."""
    count = np.diff(neighbours.start)
    most = 1 + int(count.max(initial=0))
    atom = np.repeat(np.arange(len(species)), count)
    place = 1 + np.arange(len(atom)) - neighbours.start[atom]
    vectors, elements = np.zeros((len(species), most, 3)), np.full((len(species), most), NO_NEIGHBOUR)
    vectors[atom, place] = neighbours.vector
    elements[atom, place] = species[neighbours.index]
    elements[:, 0] = species
    return vectors, elements


def _sums(
    distance2: torch.Tensor,
    elements: NDArray[np.int64],
    weight: torch.Tensor,
    decay: torch.Tensor,
    gaussians: NDArray[np.int64],
) -> torch.Tensor:
    """Σ_k weight·exp(-decay·R²) of each source: (n_atoms, most, n_sigmas, n_sources), 0 where there is no neighbour.

    Each exponential is computed once for all sources.
    """
    distance2 = distance2.flatten()
    sums = distance2.new_zeros(len(distance2), decay.shape[1], weight.shape[-1])
    for element in np.unique(elements[elements != NO_NEIGHBOUR]).tolist():
        # Searched on the CPU, so that a GPU need not be synchronised.
        own = torch.from_numpy(np.flatnonzero(elements == element)).to(distance2.device)
        n = int(gaussians[element])
        gaussian = torch.exp(-decay[element, :, :n] * distance2[own][:, None, None])
        sums[own] = torch.einsum("psk,skq->psq", gaussian, weight[element, :, :n])
    return sums.view(*elements.shape, *sums.shape[1:])


def _fill(
    vectors: torch.Tensor, sums: torch.Tensor, channels: Channels, smooth_to: float | None, found: torch.Tensor
) -> None:
    """Write the moments of some atoms to `found` (n_moments, n_atoms, n_sigmas)."""
    distance2 = vectors.square().sum(-1)[:, :, None]
    harmonics = solid_harmonics(vectors, max(channels.orders))
    if smooth_to is not None:
        harmonics *= polynomial((distance2.sqrt() / smooth_to).clamp(max=1))
    place = 0
    for c, l in enumerate(channels.l.tolist()):
        radial = torch.zeros_like(sums[..., 0])
        for t in range(channels.term_start[c], channels.term_start[c + 1]):
            factor, power = float(channels.term_factor[t]), int(channels.term_power[t])
            radial += factor * distance2**power * sums[..., channels.term_source[t]]
        # A product of matrices for each atom, not a scatter-add, whose order of addition varies on a GPU.
        product = radial.transpose(1, 2) @ harmonics[..., l * l : (l + 1) ** 2]
        found[place : place + 2 * l + 1] = product.permute(2, 0, 1)
        place += 2 * l + 1


def solid_harmonics(vectors: torch.Tensor, l_max: int) -> torch.Tensor:
    """R_lm at vectors (..., 3): (..., (l_max + 1)²), as those of `harmonics`, where the formulas are."""
    x, y, z = vectors.unbind(-1)
    r2, f = vectors.square().sum(-1), factors(l_max).tolist()
    cosine, sine = [torch.ones_like(x)], [torch.zeros_like(x)]
    for m in range(l_max):
        cosine.append(x * cosine[m] - y * sine[m])
        sine.append(x * sine[m] + y * cosine[m])
    found = vectors.new_empty(*vectors.shape[:-1], (l_max + 1) ** 2)
    diagonal = torch.ones_like(x)
    for m in range(l_max + 1):
        before, q = torch.zeros_like(x), diagonal
        for l in range(m, l_max + 1):
            found[..., l * l + l - m] = f[l][m] * q * sine[m]
            found[..., l * l + l + m] = f[l][m] * q * cosine[m]
            before, q = q, ((2 * l + 1) * z * q - (l + m) * r2 * before) / (l + 1 - m)
        diagonal = (2 * m + 1) * diagonal
    return found
