"""Potentials of n2p2 (and RuNNer), read and written: files that LAMMPS runs by `pair_style hdnnp`.

In: a folder with `input.nn`, `scaling.data` and `weights.NNN.data`. Out: a `Potential` with the same predictions
(`load_n2p2`), and the way back (`export_n2p2`). Called by: `cli.n2p2`, `api`.
"""

from bdqm_tune.n2p2.reading import load_n2p2
from bdqm_tune.n2p2.writing import export_n2p2

__all__ = ["export_n2p2", "load_n2p2"]
