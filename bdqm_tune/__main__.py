"""`python -m bdqm_tune` is the command `bdqm-tune`."""

from bdqm_tune.cli import main

main()
