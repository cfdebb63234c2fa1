"""`jobs/site.toml`: what the cluster wants to know. What its values mean is the scheduler's to judge."""

import os
import re
import tomllib
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bdqm_tune.config.config import describe
from bdqm_tune.errors import BadInput, one_line
from bdqm_tune.user import expanded

Changes = Mapping[tuple[str, str], tuple[str, str]]  # (table, key) → (option, value)


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"must be one line, got {text!r}")
    return text


def _word(text: str) -> str:
    """What goes into a flag beside other values of a scheduler, and must not add one."""
    if not re.fullmatch(r"[\w.:+=@/%-]*", text):
        raise ValueError(f"must be one word of letters, digits and . : + = @ / % - _, got {text!r}")
    return text


def _written(value: object) -> object:
    if isinstance(value, date | time):  # TOML's own kinds: 08:00:00 without quotes is a time of day
        raise ValueError(f"write it in quotes, got {value}")
    return value


def _needed(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


def _gpu(text: str) -> str:
    return "" if text in ("0", "none") else text.removeprefix("gpu:")


def _path(text: str) -> str:
    return str(expanded(os.path.expandvars(text)))


def _flag(text: str) -> str:
    return _needed(_line(text))


Line = Annotated[str, AfterValidator(_line)]
Word = Annotated[str, AfterValidator(_word)]
Needed = Annotated[Word, BeforeValidator(_written), AfterValidator(_needed)]
Flags = list[Annotated[str, AfterValidator(_flag)]]


class Table(BaseModel):
    """A table of site.toml; keys that are not known are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Resources(Table):
    """What a job requests, as its scheduler writes it."""

    walltime: Needed  # such as 8:00:00; Slurm's 2-00:00:00, and 90 for minutes; PBS's 5400 for seconds
    cores: int = Field(ge=1)
    memory: Needed  # of a node, such as 32G
    gpu: Annotated[Word, AfterValidator(_gpu)] = ""  # TYPE:COUNT, TYPE or COUNT; empty: none
    extra: Flags = []  # further flags, after those of all jobs

    @property
    def gpu_count(self) -> int:
        last = self.gpu.rpartition(":")[2]
        return int(last) if last.isdecimal() else int(bool(self.gpu))

    @property
    def gpu_type(self) -> str:
        first, _, last = self.gpu.rpartition(":")
        return first if last.isdecimal() else self.gpu


class Site(Table):
    """The whole file."""

    scheduler: Word
    account: Line = ""
    queue: Line = ""
    partition: Line = ""
    modules: Line = ""
    environment: Annotated[Line, AfterValidator(_needed), AfterValidator(_path)] = ".venv"
    warning: int = Field(120, ge=10, description="seconds before the end of a job")
    extra: Flags = []  # further flags for sbatch or qsub, of all jobs
    tune: Resources
    servers: Resources
    interactive: Resources
    analysis: Resources

    @property
    def is_example(self) -> bool:
        """Whether the account is still that of the file which travels with the package."""
        return "YOUR" in self.account

    def resources(self, job: str) -> Resources:
        """Those of one of the jobs."""
        found: Resources = getattr(self, job)
        return found

    def flags(self, job: str) -> list[str]:
        """The further flags for a job."""
        return [*self.extra, *self.resources(job).extra]

    def variables(self) -> dict[str, str]:
        """What the scripts in jobs/ want to know, as variables of their environment."""
        return {
            "BDQM_MODULES": self.modules,
            "BDQM_ENVIRONMENT": self.environment,
            "BDQM_WARNING": str(self.warning),
        }


def load_site(path: Path, changes: Changes | None = None) -> Site:
    """Read the file.

    Args:
        changes: values to put over it, with the option of the command line that gave each, as messages name it;
            table "" for the keys before all tables.

    Raises:
        BadInput: it is not there, is no TOML, or says what cannot be.
    """
    site = _validated(path, {})
    if not changes:
        return site
    try:
        return _validated(path, {place: value for place, (_, value) in changes.items()})
    except BadInput:
        for (table, key), (option, value) in changes.items():
            try:
                _validated(path, {(table, key): value})
            except BadInput as error:
                problem = str(error).partition(f"{'.'.join(filter(None, (table, key)))}: ")[2]
                raise BadInput(f"{option}: {problem}") from None
        raise


def _validated(path: Path, changes: Mapping[tuple[str, str], str]) -> Site:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        for (table, key), value in changes.items():
            content |= {table: {**content[table], key: value}} if table else {key: value}
        return Site(**content)
    except ValidationError as error:
        raise BadInput(f"site {path}: {describe(error, Site)}") from None
    except OSError as error:
        raise BadInput(f"site {path}: {error.strerror}; it is part of the project, and --site names another") from None
    # What is no table where one should be, and lists without end, fail in their own ways.
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise BadInput(f"site {path}: not valid TOML: {one_line(error)}") from None
