"""Fit the table of valence pseudo-densities, H to Rn, that the GMP descriptor uses.

    python scripts/fit_pseudodensities.py                       # all 86 elements, into the package
    python scripts/fit_pseudodensities.py --elements H O Pt     # three of them, to the screen

Each element's spherically averaged valence density, computed with pyscf (a development
dependency), becomes a sum of Gaussians, rho(r) = sum_k B_k exp(-beta_k r^2): the form that the
Gaussian multipole (GMP) descriptor needs (Lei and Medford, J. Phys. Chem. Lett. 13, 7911 (2022)).

The exponents live on a fixed geometric lattice. All coarse lattice subsets are tried, and the best
few are refined on the fine lattice, so the result needs no starting guess and no random numbers.
"""

import argparse
import json
import sys
import time
import warnings
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pyscf
from pyscf import gto, lib
from pyscf.data.nist import BOHR  # Angstrom
from pyscf.gto.basis import load_pseudo
from pyscf.scf import ADIIS, atom_ks

TABLE = Path(__file__).parents[1] / "bdqm_tune" / "descriptors" / "pseudodensities.json"

# Valence electrons: which of the published GTH-PBE potentials an element uses. It is the one that CP2K marks as default
# but for Cu, Zn, Ag, Au (semicore s and p as valence, as in their neighbours) and Pb, Bi (5d as valence, as in Tl).
# fmt: off
VALENCE = {
    "H": 1, "He": 2, "Li": 3, "Be": 4, "B": 3, "C": 4, "N": 5, "O": 6, "F": 7, "Ne": 8, "Na": 9, "Mg": 10, "Al": 3,
    "Si": 4, "P": 5, "S": 6, "Cl": 7, "Ar": 8, "K": 9, "Ca": 10, "Sc": 11, "Ti": 12, "V": 13, "Cr": 14, "Mn": 15,
    "Fe": 16, "Co": 17, "Ni": 18, "Cu": 19, "Zn": 20, "Ga": 13, "Ge": 4, "As": 5, "Se": 6, "Br": 7, "Kr": 8, "Rb": 9,
    "Sr": 10, "Y": 11, "Zr": 12, "Nb": 13, "Mo": 14, "Tc": 15, "Ru": 16, "Rh": 17, "Pd": 18, "Ag": 19, "Cd": 12,
    "In": 13, "Sn": 4, "Sb": 5, "Te": 6, "I": 7, "Xe": 8, "Cs": 9, "Ba": 10, "La": 11, "Ce": 12, "Pr": 13, "Nd": 14,
    "Pm": 15, "Sm": 16, "Eu": 17, "Gd": 18, "Tb": 19, "Dy": 20, "Ho": 21, "Er": 22, "Tm": 23, "Yb": 24, "Lu": 25,
    "Hf": 12, "Ta": 13, "W": 14, "Re": 15, "Os": 16, "Ir": 17, "Pt": 18, "Au": 19, "Hg": 12, "Tl": 13, "Pb": 14,
    "Bi": 15, "Po": 6, "At": 7, "Rn": 8,
}
# fmt: on

ORBITAL_EXPONENTS = 0.012 * 1.6 ** np.arange(21)  # 1/bohr^2, for every occupied l
HARTREE_EXPONENTS = 0.015 * 1.45 ** np.arange(28)  # 1/bohr^2; s functions do for a spherical density
RADIUS = 12.0  # Angstrom; end of the radial quadrature
RADIAL_POINTS = 600
BETA_MIN, BETA_MAX = 0.05, 60.0  # 1/Angstrom^2
COARSE_STEP = 1.25  # ratio of neighbouring exponents on the coarse lattice
REFINEMENT = 16  # fine lattice steps in a coarse one
MIN_GAP = 2 * REFINEMENT  # fine steps between two exponents of a fit: a ratio of at least 1.5625
MIN_TERMS, MAX_TERMS = 2, 6
TARGET_ERROR = 0.01  # the first number of terms that reaches it is kept
SEEDS = 4  # coarse fits that are refined
CANDIDATES = 20000  # fits whose sign is checked before giving up

PROVENANCE = {
    "program": f"pyscf {pyscf.__version__}",
    "method": "Kohn-Sham PBE (Phys. Rev. Lett. 77, 3865 (1996)) of the neutral, spherically averaged, spin-unpolarised "
    "atom; electrons per angular momentum as in the reference configuration of the pseudopotential, spread over m",
    "pseudopotential": "Goedecker-Teter-Hutter GTH-PBE-qN, N = valence_electrons, for all elements (Phys. Rev. B 54, "
    "1703 (1996); 58, 3641 (1998); Theor. Chem. Acc. 114, 145 (2005)), as distributed with pyscf; N is CP2K's default "
    "but for Cu 19, Zn 20, Ag 19, Au 19, Pb 14, Bi 15, which count a semicore shell as valence",
    "basis": "uncontracted even-tempered Gaussians, 0.012 * 1.6^i 1/bohr^2, i = 0 to 20, for each occupied angular "
    "momentum; Hartree potential by density fitting with s functions 0.015 * 1.45^i 1/bohr^2, i = 0 to 27",
    "script": "scripts/fit_pseudodensities.py",
    "units": {"r": "Angstrom", "beta": "1/Angstrom^2", "B": "electrons/Angstrom^3"},
    "fit": "rho(r) = sum_k B_k exp(-beta_k r^2); least squares of 4 pi r^2 rho(r), r = 0 to 12 Angstrom; the number "
    "of electrons, sum_k B_k (pi/beta_k)^1.5, is exact; rho >= 0 from 0 to 10 Angstrom; beta in [0.05, 60], neighbours "
    "at least a factor 1.56 apart; the fewest terms, 2 to 6, with an error of at most 0.01, else the best of them",
    "error_definition": "integral of |rho_fit - rho| 4 pi r^2 dr / valence_electrons",
}


class SphericalAtom(atom_ks.AtomSphAverageRKS):
    """Restricted Kohn-Sham atom with the electrons of each l spread evenly over m and spin.

    `shell_electrons[l]` is the number of valence electrons of angular momentum l.
    """

    shell_electrons: list[int]

    def get_occ(self, mo_energy=None, mo_coeff=None) -> np.ndarray:
        """Occupations (n_orbitals,), in the order of `eig`: by l, by energy, by m."""
        occupations = []
        for angular, electrons in enumerate(self.shell_electrons):
            orbitals = 2 * angular + 1
            shells = np.zeros(len(ORBITAL_EXPONENTS))
            full, rest = divmod(electrons, 2 * orbitals)
            shells[:full] = 2
            shells[full] = rest / orbitals
            occupations.append(np.repeat(shells, orbitals))
        return np.hstack(occupations)


def valence_density(symbol: str, r: np.ndarray) -> np.ndarray:
    """Valence pseudo-density of the free atom at the radii `r` (n,), Angstrom: (n,), electrons/Angstrom^3."""
    potential = load_pseudo(f"GTH-PBE-q{VALENCE[symbol]}", symbol)
    shell_electrons = potential[0]
    basis = {symbol: [[i, [a, 1.0]] for i in range(len(shell_electrons)) for a in ORBITAL_EXPONENTS]}
    spin = sum(shell_electrons) % 2  # pyscf wants to know; the occupations are unpolarised all the same
    # One thread, as the order of sums, and so the last digits, would depend on their number.
    with lib.with_omp_threads(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Function int1e_r._origi_sph not found.  Set its comp to 1")
        atom = gto.M(atom=symbol, basis=basis, pseudo={symbol: potential}, spin=spin, verbose=0)
        scf = SphericalAtom(atom)
        scf.shell_electrons = shell_electrons
        scf.xc = "pbe"
        # The angular grid is exact: averages over m of products up to f times f have l = 0 only.
        scf.grids.atom_grid, scf.grids.prune = (150, 50), None
        scf.init_guess, scf.conv_tol, scf.max_cycle = "1e", 1e-12, 300
        scf = scf.density_fit(auxbasis={symbol: [[0, [a, 1.0]] for a in HARTREE_EXPONENTS]})
        scf.diis = ADIIS()
        scf.diis.space = 12
        scf.kernel()
        if not scf.converged:
            raise RuntimeError(f"{symbol}: no self-consistency in {scf.max_cycle} cycles; raise max_cycle")
        orbitals = atom.eval_gto("GTOval_sph", np.outer(r / BOHR, [0.0, 0.0, 1.0]))
        return np.einsum("gi,ij,gj->g", orbitals, scf.make_rdm1(), orbitals) / BOHR**3


def radial_quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Radii (n,) and weights (n,), both Angstrom: midpoint rule in sqrt(r), dense at the nucleus."""
    x = (np.arange(RADIAL_POINTS) + 0.5) / RADIAL_POINTS
    return RADIUS * x**2, 2 * RADIUS * x / RADIAL_POINTS


@dataclass(frozen=True)
class Lattice:
    """Unit-charge Gaussians g(r) = peak exp(-beta r^2), peak = (beta/pi)^1.5, at all lattice exponents."""

    beta: np.ndarray  # (m,), 1/Angstrom^2, ascending
    peak: np.ndarray  # (m,), 1/Angstrom^3
    radial: np.ndarray  # (n, m), 1/Angstrom: 4 pi r^2 g at the quadrature radii
    overlap: np.ndarray  # (m, m), 1/Angstrom: integral of (4 pi r^2)^2 g g' dr
    sign_check: np.ndarray  # (k, m), 1/Angstrom^3: g where the fit must not be negative


@cache
def lattice() -> Lattice:
    """The fine lattice of exponents, from BETA_MAX down to at least BETA_MIN."""
    coarse = int(np.log(BETA_MAX / BETA_MIN) / np.log(COARSE_STEP))
    beta = BETA_MAX / COARSE_STEP ** (np.arange(coarse * REFINEMENT + 1)[::-1] / REFINEMENT)
    peak = (beta / np.pi) ** 1.5
    r, _ = radial_quadrature()
    check = np.r_[np.linspace(0, 2, 101), np.linspace(2.05, 10, 160)]
    return Lattice(
        beta=beta,
        peak=peak,
        radial=4 * np.pi * r[:, None] ** 2 * peak * np.exp(-np.outer(r**2, beta)),
        # integral of r^4 exp(-(a + b) r^2) dr = 3/8 sqrt(pi) (a + b)^-2.5
        overlap=6 * np.pi**2.5 * np.outer(peak, peak) * np.add.outer(beta, beta) ** -2.5,
        sign_check=peak * np.exp(-np.outer(check**2, beta)),
    )


@cache
def coarse_subsets(terms: int) -> np.ndarray:
    """All allowed choices of `terms` coarse exponents, as indices of the fine lattice (n, terms)."""
    gap = MIN_GAP // REFINEMENT - 1
    size = len(lattice().beta) // REFINEMENT + 1 - gap * (terms - 1)
    return (np.array(list(combinations(range(size), terms))) + gap * np.arange(terms)) * REFINEMENT


def neighbours(subset: np.ndarray, stride: int) -> np.ndarray:
    """Subsets (n, terms) with each index of `subset` (terms,) moved by -stride, 0 or stride."""
    moved = subset + stride * np.array(list(product((-1, 0, 1), repeat=len(subset))))
    inside = (moved[:, 0] >= 0) & (moved[:, -1] < len(lattice().beta))
    return moved[inside & (np.diff(moved, axis=1) >= MIN_GAP).all(axis=1)]


def constrained_charges(subsets: np.ndarray, projection: np.ndarray, conditions: list) -> tuple[np.ndarray, np.ndarray]:
    """Charges (n, terms), electrons, of the least-squares fits, and their objectives (n,), electrons^2/Angstrom.

    `projection` (m,), electrons/Angstrom: integral of (4 pi r^2)^2 g rho dr. `conditions`: pairs of a row over the
    lattice (m,) and the value that its sum with the charges must have; Lagrange multipliers see to it.
    """
    count, terms = subsets.shape
    size = terms + len(conditions)
    matrix, right = np.zeros((count, size, size)), np.zeros((count, size))
    overlap = lattice().overlap[subsets[:, :, None], subsets[:, None, :]]
    matrix[:, :terms, :terms] = overlap
    right[:, :terms] = projection[subsets]
    for i, (row, value) in enumerate(conditions, start=terms):
        matrix[:, :terms, i] = matrix[:, i, :terms] = row[subsets]
        right[:, i] = value
    charges = np.linalg.solve(matrix, right[..., None])[:, :terms, 0]
    quadratic = np.einsum("ni,nij,nj->n", charges, overlap, charges)
    return charges, quadratic - 2 * np.einsum("ni,ni->n", charges, projection[subsets])


def best_fits(subsets: np.ndarray, projection: np.ndarray, electrons: float, centre: float, count: int) -> list:
    """The `count` best non-negative fits of all `subsets`: a list of (objective, subset, charges).

    Each subset is tried with the exact electron count alone, and with the density at the nucleus
    fixed to `centre`, electrons/Angstrom^3, too: most fits that would dip below zero do so there.
    """
    table = lattice()
    # Divided by 100, peaks are of the order of the other matrix elements.
    conditions = [(np.ones_like(table.beta), electrons), (table.peak / 100, centre / 100)]
    found = []
    for used in range(1, 1 + min(2, subsets.shape[1] - 1)):
        parts = np.array_split(subsets, len(subsets) // 50000 + 1)
        solved = [constrained_charges(part, projection, conditions[:used]) for part in parts]
        charges = np.concatenate([part[0] for part in solved])
        objective = np.concatenate([part[1] for part in solved])
        good = 0
        for i in np.argsort(objective, kind="stable")[:CANDIDATES]:
            if charges[i, 0] > 0 and (table.sign_check[:, subsets[i]] @ charges[i]).min() >= 0:
                found.append((objective[i], subsets[i], charges[i]))
                good += 1
                if good == count:
                    break
    return sorted(found, key=lambda fit: fit[0])[:count]


def fit_gaussians(density: np.ndarray, electrons: float, terms: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Best sum of `terms` Gaussians for `density` (n,), electrons/Angstrom^3, at `radial_quadrature()`.

    Returns beta (terms,), 1/Angstrom^2; B (terms,), electrons/Angstrom^3; and the error, the integral
    of |rho_fit - rho| 4 pi r^2 dr over the number of `electrons`.
    """
    table, (r, weights) = lattice(), radial_quadrature()
    target = 4 * np.pi * r**2 * density
    projection = table.radial.T @ (weights * target)
    centre = max(density[0], 1e-3 * density.max())
    refined = []
    for fit in best_fits(coarse_subsets(terms), projection, electrons, centre, SEEDS):
        stride = REFINEMENT // 2
        while stride >= 1:
            better = best_fits(neighbours(fit[1], stride), projection, electrons, centre, 1)
            if better and better[0][0] < fit[0] - 1e-10:
                fit = better[0]
            else:
                stride //= 2
        refined.append(fit)
    if not refined:
        raise ValueError(f"no non-negative fit with {terms} Gaussians; raise CANDIDATES")
    _, subset, charges = min(refined, key=lambda fit: fit[0])
    error = np.abs(table.radial[:, subset] @ charges - target) @ weights / electrons
    return table.beta[subset], charges * table.peak[subset], error


def element_entry(symbol: str) -> dict:
    """The table's entry of one element, ready for JSON."""
    r, _ = radial_quadrature()
    density = valence_density(symbol, r)
    electrons = float(VALENCE[symbol])
    fits = []
    for terms in range(MIN_TERMS, MAX_TERMS + 1):
        fits.append(fit_gaussians(density, electrons, terms))
        if fits[-1][2] <= TARGET_ERROR:
            break
    beta, b, error = min(fits, key=lambda fit: fit[2])
    return {
        "valence_electrons": electrons,
        "B": [float(f"{x:.10g}") for x in b],
        "beta": [float(f"{x:.10g}") for x in beta],
        "fit_error": float(f"{error:.3g}"),
    }


def table_text(entries: dict[str, dict]) -> str:
    """The JSON text of the table, one element a line."""
    lines = ",\n".join(f'    "{symbol}": {json.dumps(entry)}' for symbol, entry in entries.items())
    provenance = json.dumps(PROVENANCE, indent=2).replace("\n", "\n  ")
    return f'{{\n  "provenance": {provenance},\n  "elements": {{\n{lines}\n  }}\n}}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", nargs="+", metavar="SYMBOL", help="default: all, H to Rn")
    parser.add_argument("--out", type=Path, help="default: the package's table; with --elements, the screen")
    options = parser.parse_args()
    unknown = sorted(set(options.elements or []) - set(VALENCE))
    if unknown:
        parser.error(f"unknown elements {' '.join(unknown)}; known: {' '.join(VALENCE)}")

    entries = {}
    for symbol in [s for s in VALENCE if s in (options.elements or VALENCE)]:
        start = time.perf_counter()
        entries[symbol] = entry = element_entry(symbol)
        sizes = f"{VALENCE[symbol]:3d} electrons, {len(entry['beta'])} Gaussians"
        seconds = time.perf_counter() - start
        print(f"{symbol:2s} {sizes}, error {entry['fit_error']:.4f}, {seconds:.1f} s", file=sys.stderr, flush=True)
    out = options.out or (None if options.elements else TABLE)
    if out is None:
        print(table_text(entries), end="")
    else:
        out.write_text(table_text(entries))


if __name__ == "__main__":
    main()
