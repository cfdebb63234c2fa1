"""Evaluate the best model of a study on its test split: metrics with intervals, tables and figures in `figures/`.

python analysis/evaluate.py --study oc20
python analysis/evaluate.py --study oc20 --ensemble latest

The same as `bdqm-tune evaluate --out figures/`; in a script of your own: `bdqm_tune.evaluate`.
"""

import sys

from bdqm_tune.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["evaluate", "--out", "figures/"]
    main()
