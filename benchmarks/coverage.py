"""Whether intervals hold what they state where the structures that they are calibrated on had no part in the tuning,
and whether the spread of an ensemble makes them narrower.

python -m benchmarks.coverage figures/oc20/ensemble/errors.csv [--coverage 0.9] [--repeat 1000]

The file is what `bdqm-tune evaluate --ensemble latest --out figures/` writes. Half of its structures, drawn at random,
calibrate; the coverage and the mean width of the intervals of the other half are printed, for three ways to normalise
the errors.
"""

import argparse

import numpy as np
import pandas as pd

from bdqm_tune.learning.calibration import rank_of
from bdqm_tune.models.ensembling import FLOOR


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--coverage", type=float, default=0.9)
    parser.add_argument("--repeat", type=int, default=1000)
    options = parser.parse_args()
    errors = pd.read_csv(options.file)
    deviation, n_atoms, std = (errors[name].to_numpy(float) for name in ("error", "n_atoms", "std"))
    norms = {
        "spread": np.maximum(std, FLOOR * np.median(std / n_atoms) * n_atoms),
        "number of atoms": n_atoms,
        "none": np.ones(len(errors)),
    }
    half = len(errors) // 2
    print(f"{half} structures calibrate, {len(errors) - half} are covered; stated {options.coverage:g}")
    print(f"{'errors normalised by':<22}{'coverage':>10}{'width (eV)':>12}")
    for name, norm in norms.items():
        random, found = np.random.default_rng(0), []
        for _ in range(options.repeat):
            order = random.permutation(len(errors))
            some, others = order[:half], order[half:]
            scores = np.sort(np.abs(deviation[some]) / norm[some])
            widths = scores[rank_of(half, options.coverage) - 1] * norm[others]
            found.append((np.mean(np.abs(deviation[others]) <= widths), np.mean(2 * widths)))
        coverage, width = np.mean(found, axis=0)
        print(f"{name:<22}{coverage:>10.3f}{width:>12.4g}")


if __name__ == "__main__":
    main()
