"""`python -m bdqm_tune` and the command `bdqm-tune`."""

import gc
import sys
from typing import NoReturn

from bdqm_tune.cli.interruption import end, ignore_interruption, listen
from bdqm_tune.user import complete_environment


def main() -> NoReturn:
    """Run the command line; a signal that comes while it is imported ends it as any other."""
    sys.unraisablehook = ignore_interruption
    # What torch and MLflow import stays: collecting garbage in it took a fifth of a command's start.
    gc.set_threshold(20_000)
    try:
        listen()
        complete_environment()
        from bdqm_tune.cli.main import main as run

        run()
    except KeyboardInterrupt:
        end()


if __name__ == "__main__":
    main()
