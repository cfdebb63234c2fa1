"""Say whether your servers run, where, and since when.

python mlflow_server/status.py

The same as `bdqm-tune services status`.
"""

import sys

from bdqm_tune.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["services", "status"]
    main()
