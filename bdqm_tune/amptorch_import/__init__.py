"""What users of amptorch bring along: its configurations and checkpoints, read without amptorch."""

from bdqm_tune.amptorch_import.checkpoint import load_amptorch_checkpoint
from bdqm_tune.amptorch_import.config_file import read_config
from bdqm_tune.amptorch_import.translation import translate

__all__ = ["load_amptorch_checkpoint", "read_config", "translate"]
