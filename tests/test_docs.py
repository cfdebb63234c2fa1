"""What the README and the documentation show is what the program does."""

import os
import re
from pathlib import Path

import ase.io
import pytest
import yaml
from typer.testing import CliRunner

from bdqm_tune.cli.main import app
from bdqm_tune.cli.shared import assignments
from bdqm_tune.config.backends.mace import MACE, MaceHyperparameters
from bdqm_tune.config.config import Config, load_config
from bdqm_tune.config.descriptor_options import DESCRIPTORS
from bdqm_tune.config.hyperparameters import AMPOPT_SEARCH
from bdqm_tune.structures import builtin_structures

PROJECT = Path(__file__).parents[1]


def blocks(file: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (PROJECT / file).read_text(), flags=re.DOTALL | re.MULTILINE)


def test_the_documented_configuration_is_the_default_one() -> None:
    text, predecessors, _ = blocks("docs/configuration.md", "yaml")
    assert yaml.safe_load(predecessors) == {"search": AMPOPT_SEARCH}
    documented = Config(**yaml.safe_load(text))
    assert documented.model_dump() == Config().model_dump()
    assert set(yaml.safe_load(text)) == set(Config.model_fields)


def test_the_documented_hyperparameters_of_mace_are_all_there_are() -> None:
    text = (PROJECT / "docs/backends.md").read_text().partition("## MACE")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    defaults = MaceHyperparameters().model_dump()
    assert {row[0].strip("`"): yaml.safe_load(row[1]) for row in rows} == {
        name: value if not isinstance(value, float) or value >= 1e-4 else f"{value:.0e}".replace("e-0", "e-")
        for name, value in defaults.items()
    }
    for name, _, searched, _ in rows:
        numbers = [float(number) for number in re.findall(r"[\d.]+", searched)]
        entry = MACE.search.get(name.strip("`"), {})
        assert next((entry[kind] for kind in ("float", "int", "choice") if kind in entry), []) == numbers
        assert ("log" in searched) == ("log" in entry)


def test_the_tests_of_the_promises_are_there() -> None:
    text, _, _ = (PROJECT / "docs/reliability.md").read_text().partition("\n## ")
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| ")][1:]
    sources = "\n".join(path.read_text() for path in (PROJECT / "tests").rglob("*.py"))
    there = set(re.findall(r"def (test_\w+)", sources))
    assert len(rows) > 10
    for fault, _, tests in rows:
        named = set(re.findall(r"`(test_\w+)`", tests))
        files = re.findall(r"`(tests/\S+\.py)`", tests)
        assert named or files, fault
        assert named <= there, named - there
        assert all((PROJECT / file).exists() for file in files)


def test_the_documented_search_of_descriptors_is_one() -> None:
    _, _, text = blocks("docs/configuration.md", "yaml")
    documented = Config(**yaml.safe_load(text))
    assert documented.descriptor == Config().descriptor
    assert documented.descriptor_spaces.keys() == {name.removeprefix("descriptor.") for name in re.findall(
        r"descriptor\.\w+(?=: )", text
    )}  # fmt: skip
    for given in re.findall(r"set=(descriptor\S+?)`", (PROJECT / "docs/configuration.md").read_text()):
        assert load_config(None, {"search": assignments(given)}).descriptor != Config().descriptor


def test_the_documented_symmetry_functions_are_the_default_ones() -> None:
    (text,) = blocks("docs/configuration.md", "text")
    documented = yaml.safe_load(text)["descriptor"]
    default = Config(descriptor={"name": "symmetry_functions"}).descriptor.model_dump()  # type: ignore[arg-type]
    assert documented == {key: value for key, value in default.items() if key in documented}
    assert documented.keys() >= DESCRIPTORS["symmetry_functions"]
    for groups in re.findall(r"`(groups: .*?)`", (PROJECT / "docs/configuration.md").read_text()):
        assert yaml.safe_load(groups)["groups"] == Config().descriptor.groups


def test_the_readmes_python_runs(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, name in (("train", "train.traj"), ("test", "test.traj")):
        structures = builtin_structures(split)  # type: ignore[arg-type]
        images = [atoms.copy() for atoms in structures.atoms[:40]]
        for atoms, energy in zip(images, structures.energies, strict=False):
            atoms.info["energy"] = energy
        ase.io.write(workdir / "labelled.xyz", images, format="extxyz")
        ase.io.write(workdir / name, ase.io.read(workdir / "labelled.xyz", ":"))
    (code,) = blocks("README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    float(capsys.readouterr().out.splitlines()[-1])


def test_the_gallery_is_small_and_complete(workdir: Path) -> None:
    text = (PROJECT / "docs" / "figures.md").read_text()
    shown = {path.removeprefix("figures/") for path in re.findall(r"\]\((figures/[^)]+)\)", text)}
    files = {path.name: path.stat().st_size for path in (PROJECT / "docs" / "figures").iterdir()}
    assert shown == files.keys()
    assert max(files.values()) < 150_000
    assert sum(files.values()) < 1_500_000
    (code,) = blocks("docs/figures.md", "python")
    exec("\n".join(line for line in code.splitlines() if "import" in line), {})


def test_the_readmes_files_and_commands_exist() -> None:
    text = (PROJECT / "README.md").read_text()
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", text):
        assert (PROJECT / path).exists(), path
    makefile = (PROJECT / "Makefile").read_text()
    for target in re.findall(r"(?:`|\n)make ([a-z-]+)", text):
        assert f"\n{target}:" in makefile
    for command in re.findall(r"`bdqm-tune ([a-z]+)`", text):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
    assert os.access(PROJECT / ".ci" / "run", os.X_OK)
