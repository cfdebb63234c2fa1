"""The page about amptorch names every key that amptorch reads."""

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/amptorch.md"
# From `trainer.py`, `model.py` and the descriptors of amptorch, July 2023.
KEYS = """
name num_layers num_nodes hidden_layers activation batchnorm dropout dropout_rate initialization get_forces
gpus force_coefficient lr batch_size epochs loss loss_fn metric cp_metric optimizer optimizer_args scheduler
raw_data lmdb_path cache val_split val_split_mode elements fp_scheme fp_params cutoff_params save_fps scaling
debug dtype run_dir seed identifier verbose logger early_stopping early_stoppping_patience
MCSHs MCSHs_detailed_list cutoff square solid_harmonics atom_gaussians rs_setup log prime_threshold G2 G4 G5
"""


def test_every_key_is_named() -> None:
    text = PAGE.read_text()
    assert [key for key in KEYS.split() if f"`{key}`" not in text and f".{key}`" not in text] == []
