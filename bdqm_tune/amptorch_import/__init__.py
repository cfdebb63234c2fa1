"""What users of amptorch bring along, and take back: its configurations and checkpoints, without amptorch."""

from bdqm_tune.amptorch_import.checkpoint import load_amptorch_checkpoint
from bdqm_tune.amptorch_import.config_file import read_config
from bdqm_tune.amptorch_import.export import export_config
from bdqm_tune.amptorch_import.translation import translate

__all__ = ["export_config", "load_amptorch_checkpoint", "read_config", "translate"]
