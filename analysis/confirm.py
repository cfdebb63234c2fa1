"""Train the best configurations of a study again with other seeds, and choose the champion; tables in `figures/`.

python analysis/confirm.py --study oc20 --best 5 --seeds 5

The same as `bdqm-tune confirm --out figures/`; in a script of your own: `bdqm_tune.confirm`.
"""

import sys

from bdqm_tune.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["confirm", "--out", "figures/"]
    main()
