"""Start your own database and MLflow server, or say where they run.

python mlflow_server/start.py --host 0.0.0.0

The same as `bdqm-tune services up`.
"""

import sys

from bdqm_tune.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["services", "up"]
    main()
