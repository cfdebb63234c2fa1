"""A PostgreSQL server that a user has, for studies."""

import os
import subprocess
from pathlib import Path

import sqlalchemy

from bdqm_tune.mlflow_server.processes import free_port


def find_programs() -> Path | None:
    """The folder with PostgreSQL's programs, where Debian has them: of the newest version; None: not installed."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    installed = [folder for folder in folders if (folder / "initdb").exists()]
    return max(installed, key=lambda folder: int(folder.parent.name), default=None)


class PostgreSql:
    """A server of the tests' own in a folder, without passwords, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        programs = find_programs()
        assert programs is not None
        self.folder, self.programs, self.port = folder, programs, free_port("127.0.0.1")
        if os.getuid() == 0:  # for whom it does not start
            folder.chmod(0o777)
        self._run("initdb", "-A", "trust", "-U", "postgres", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        other = {"user": "postgres", "group": "postgres", "extra_groups": ()} if os.getuid() == 0 else {}
        command = [str(self.programs / program), "-D", f"{self.folder}/data", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **other)  # type: ignore[call-overload]

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=500"
        self._run("pg_ctl", "-o", options, "-l", f"{self.folder}/log", "-w", "start")

    def kill(self) -> None:
        self._run("pg_ctl", "-m", "immediate", "-w", "stop")

    def execute(self, statement: str, database: str = "postgres") -> list[sqlalchemy.Row[tuple[object, ...]]]:
        """The rows of a statement, if it has any."""
        engine = sqlalchemy.create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                result = connection.exec_driver_sql(statement)
                return list(result) if result.returns_rows else []
        finally:
            engine.dispose()

    def url(self, database: str) -> str:
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/{database}"
