"""Import from amptorch and export to it; amptorch itself is not needed.

In: an amptorch script's configuration or a checkpoint. Out: a configuration file of this package
(`read_config`, `translate`), a `Potential` with the same predictions (`load_amptorch_checkpoint`), and the way back
(`export_config`). Called by: `cli.amptorch`, `api`.
"""

from bdqm_tune.amptorch_import.checkpoint import load_amptorch_checkpoint
from bdqm_tune.amptorch_import.config_file import read_config
from bdqm_tune.amptorch_import.export import export_config
from bdqm_tune.amptorch_import.translation import translate

__all__ = ["export_config", "load_amptorch_checkpoint", "read_config", "translate"]
