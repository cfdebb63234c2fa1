"""Write one archive of all studies, runs and files, while the servers run.

python mlflow_server/backup.py --out backup.tar.gz

The same as `bdqm-tune services backup`.
"""

import sys

from bdqm_tune.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["services", "backup"]
    main()
