"""Write the report of a study: a page, the same as Markdown, tables and figures in `reports/`.

python analysis/report.py oc20

The same as `bdqm-tune report`. What the report says is in `bdqm_tune.analysis.reporting`.
"""

import sys

from bdqm_tune.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["report"]
    main()
