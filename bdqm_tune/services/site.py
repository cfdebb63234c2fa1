"""`jobs/site.toml`: what the cluster wants to know."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bdqm_tune.config.config import describe
from bdqm_tune.errors import BadInput, one_line

SchedulerName = Literal["slurm", "pbs", "local"]  # those of `submission.SCHEDULERS`


class Table(BaseModel):
    """A table of site.toml; keys that are not known are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(Table):
    """What a job requests."""

    walltime: str = Field(pattern=r"^\d+(:\d\d){1,2}$", description="hours:minutes:seconds or minutes:seconds")
    cores: int = Field(ge=1)
    memory: str = Field(pattern=r"^\d+[MG]$", description="of a node")
    gpu: str = Field("", pattern=r"^(([A-Za-z]\w*:)?[1-9]\d*)?$", description="TYPE:COUNT, COUNT, or empty: none")

    @property
    def gpu_count(self) -> int:
        return int(self.gpu.rpartition(":")[2] or 0)

    @property
    def gpu_type(self) -> str:
        return self.gpu.rpartition(":")[0]

    @property
    def seconds(self) -> int:
        """The walltime."""
        seconds = 0
        for part in self.walltime.split(":"):
            seconds = 60 * seconds + int(part)
        return seconds


class Site(Table):
    """The whole file."""

    scheduler: SchedulerName
    account: str = ""
    queue: str = ""
    partition: str = ""
    modules: str = ""
    environment: str = ".venv"
    warning: int = Field(120, ge=10, description="seconds before the end of a job")
    tune: Resources
    servers: Resources
    interactive: Resources
    analysis: Resources

    def resources(self, job: str) -> Resources:
        """Those of one of the jobs."""
        found: Resources = getattr(self, job)
        return found


def load_site(path: Path, changes: Mapping[str, Mapping[str, str]] | None = None) -> Site:
    """Read the file.

    Args:
        changes: values to put over it: table → key → value; table "" for the keys before all tables.

    Raises:
        BadInput: it is not there, is no TOML, or says what cannot be.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        for table, values in (changes or {}).items():
            content |= {table: {**content.get(table, {}), **values}} if table else values
        site = Site(**content)
    except ValidationError as error:
        raise BadInput(f"site {path}: {describe(error, Site)}") from None
    except OSError as error:
        raise BadInput(f"site {path}: {error.strerror}; it is part of the project, and --site names another") from None
    # What is no table where one should be, and lists without end, fail in their own ways.
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise BadInput(f"site {path}: not valid TOML: {one_line(error)}") from None
    if site.scheduler != "local" and "YOUR" in site.account:
        raise BadInput(f"site {path}: account: {site.account!r} is an example; write your group's, or leave it empty")
    for job in ("tune", "servers"):
        if site.resources(job).seconds <= site.warning:
            raise BadInput(f"site {path}: {job}.walltime: must be longer than the warning of {site.warning} s")
    return site
