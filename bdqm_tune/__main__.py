"""`python -m bdqm_tune`, and the command `bdqm-tune`."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until `main` has its own way to end: Ctrl-C in the imports, which take a while, would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from bdqm_tune.cli import main

if __name__ == "__main__":
    main()
