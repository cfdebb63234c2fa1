"""Shut your servers down.

python mlflow_server/stop.py

The same as `bdqm-tune services down`.
"""

import sys

from bdqm_tune.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["services", "down"]
    main()
