"""A scheduler: each job is a file in the folder `$SPOOL`, which something else runs; for machines that have one."""

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bdqm_tune.errors import BadInput, BdqmError
from bdqm_tune.services.jobspec import JobSpec, JobState, Scheduler


class Spool(Scheduler):
    """Files `ID.job`, each a shell script; who runs one renames it to `ID.running`, and removes it at its end."""

    name = "spool"
    suffix = ".sbatch"  # of the scripts in jobs/, which are plain shell for `bash`
    queue = "ls $SPOOL"

    def check(self) -> None:
        if not os.environ.get("SPOOL") or not Path(os.environ["SPOOL"]).is_dir():
            raise BadInput("no spool here: set SPOOL to its folder")

    def command(self, spec: JobSpec) -> list[str]:
        return ["bash", str(self.script(spec))]

    def folder(self, spec: JobSpec) -> Path:
        return spec.project

    def submit(self, spec: JobSpec) -> str:
        self.check()
        job_id = secrets.token_hex(4)
        try:
            # Under another name first, so that nobody runs half a file; an array is one job a worker.
            for task in range(max(1, spec.workers)):
                path = Path(os.environ["SPOOL"]) / f"{job_id}_{task}.job"
                path.with_suffix(".part").write_text(f"{self.text(spec)}\n", encoding="utf-8")
                path.with_suffix(".part").rename(path)
        except OSError as error:
            raise BdqmError(f"{error.filename}: {error.strerror}") from None
        return job_id

    def states(self, job_ids: Sequence[str]) -> list[JobState]:
        names = {".job": "pending", ".running": "running"}
        files = sorted(Path(os.environ.get("SPOOL", ".")).iterdir())
        return [
            JobState(file.stem, names[file.suffix])
            for file in files
            if file.suffix in names and file.stem.rpartition("_")[0] in job_ids
        ]

    def cancel(self, job_id: str) -> None:
        for file in Path(os.environ.get("SPOOL", ".")).glob(f"{job_id}_*.job"):
            with suppress(FileNotFoundError):  # it has begun, or was removed
                file.unlink()
