"""A training program as others write them: it knows nothing of bdqm-tune. Its model is linear in the numbers of atoms.

`python training_program.py --train FILE --valid FILE --out FOLDER …`; `--mode` makes it behave badly.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np

ELEMENTS = (29, 79)


def inputs_and_targets(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Fractions of the elements, and energies per atom, eV."""
    images = ase.io.read(name, ":")
    fractions = np.array([[(atoms.numbers == z).mean() for z in ELEMENTS] for atoms in images])
    return fractions, np.array([atoms.get_potential_energy() / len(atoms) for atoms in images])


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("train", "valid", "out", "device", "text"):
        parser.add_argument(f"--{name}", default="")
    for name in ("epochs", "seed"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--mode", default="good")
    parser.add_argument("--restart", action="store_true")
    options = parser.parse_args()
    out = Path(options.out)
    x, y = inputs_and_targets(options.train)
    x_valid, y_valid = inputs_and_targets(options.valid)
    state = {"epoch": 0, "weights": np.random.default_rng(options.seed).normal(size=2).tolist()}
    if options.restart:
        state = json.loads((out / "model.json").read_text())
    (out / "text").write_text(options.text)
    weights = np.array(state["weights"])
    print(f"{len(x)} structures, {options.device}", flush=True)
    with (out / "results.jsonl").open("a") as results:
        for epoch in range(state["epoch"] + 1, options.epochs + 1):
            if options.mode == "fail" and epoch == 3:
                print("Traceback: out of memory at layer 7", file=sys.stderr)
                sys.exit(3)
            if options.mode == "early" and epoch == 3:
                return
            if options.mode == "loop" and epoch == 3:
                subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                while True:
                    time.sleep(600)
            if options.mode == "slow":
                time.sleep(0.5)
            weights = weights - options.lr * 2 * x.T @ (x @ weights - y) / len(x)
            error = float(np.abs(x_valid @ weights - y_valid).mean())
            if options.mode == "loop":
                error += 10
            (out / "model.json").write_text(json.dumps({"epoch": epoch, "weights": weights.tolist()}))
            results.write(json.dumps({"epoch": epoch, "mae": 1000 * error, "mode": "eval"}) + "\n")
            results.flush()
            print(f"Epoch {epoch}: MAE_E_per_atom= {1000 * error:.6f} meV", flush=True)


main()
