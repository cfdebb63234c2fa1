"""Compare the trials of a study, or several studies: a table, CSV files and figures in `figures/`.

python analysis/compare.py oc20
python analysis/compare.py tpe-1 tpe-2 random-1 random-2

The same as `bdqm-tune compare`. To draw a figure your own way, take its function from `bdqm_tune.analysis.figures`
(a data frame in, Axes out) and the frames from `bdqm_tune.load_results`: docs/figures.md has examples.
"""

import sys

from bdqm_tune.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["compare"]
    main()
