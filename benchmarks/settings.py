"""Settings of descriptors of which amptorch's numbers are known, by name."""

from typing import Any

import numpy as np

S8 = [0.02, 0.2, 0.4, 0.69, 1.1, 1.66, 2.66, 4.4]
L5 = [0.4, 0.8, 1.2, 1.6, 2.0]
GROUPS = {0: [1], 1: [1], 2: [1, 2], 3: [1, 2, 3]}
G2 = {"etas": np.geomspace(0.05, 5, 4).tolist(), "rs": [0.0, 1.5]}
G4 = {"etas": [0.005, 0.05], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]}

GMP_GROUPS: dict[str, dict[str, Any]] = {
    "gmp_ampopt": {"groups": {n: GROUPS[n] for n in range(3)}, "sigmas": S8, "cutoff": 5.0, "square": False},
    "gmp_order3": {"groups": GROUPS, "sigmas": S8, "cutoff": 8.0, "square": False},
    "gmp_order3_square": {"groups": GROUPS, "sigmas": L5, "cutoff": 6.0, "square": True},
    "gmp_orders_4_5": {"groups": {4: [1, 2, 3, 4], 5: [1, 2, 3, 4, 5]}, "sigmas": L5, "cutoff": 6.0, "square": False},
}
GMP_NORMALISED: dict[str, dict[str, Any]] = {
    "gmpordernorm_solid_square": {"orders": range(5), "sigmas": L5, "cutoff": 6.0},
    "gmpordernorm_solid": {"orders": range(5), "sigmas": L5, "cutoff": 6.0, "square": False},
    "gmpordernorm_surface_square": {"orders": range(5), "sigmas": L5, "cutoff": 6.0, "solid": False},
    "gmpordernorm_default_cutoff": {"orders": range(4), "sigmas": L5, "cutoff": None},
    "gmpordernorm_solid_0_9": {"orders": range(10), "sigmas": L5, "cutoff": 6.0},
    "gmpordernorm_surface_0_8": {"orders": range(9), "sigmas": L5, "cutoff": 6.0, "solid": False},
}
SYMMETRY: dict[str, dict[str, Any]] = {
    "sf_cosine": {"cutoff": 6.0, "g2": G2, "g4": G4},
    "sf_polynomial": {"cutoff": 6.0, "g2": G2, "g4": G4, "cutoff_function": "polynomial", "gamma": 2.0},
    "sf_g5_cosine": {
        "cutoff": 5.0,
        "g2": {"etas": [0.05, 1.0], "rs": [0.0]},
        "g5": {"etas": [0.005], "zetas": [1.0, 4.0], "gammas": [1.0, -1.0]},
    },
}
