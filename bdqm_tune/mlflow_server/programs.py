"""Where the database's programs are: on the PATH, in Debian's places, in a conda environment or a module's folder."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bdqm_tune.errors import BdqmError

SERVERS = ("mariadbd", "mysqld")
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/mysql/bin", "/opt/mysql/bin")
# What environment modules (Lmod, as on PACE; EasyBuild's; Spack's) set to the folder of a package.
MODULE_VARIABLES = ("MARIADB_ROOT", "MYSQL_ROOT", "MARIADBROOT", "MYSQLROOT", "EBROOTMARIADB", "EBROOTMYSQL")
HELP = (
    "no database server: neither mariadbd nor mysqld is on the PATH or in the usual places. "
    "Debian: sudo apt-get install mariadb-server-core mariadb-client; "
    "conda: conda install -c conda-forge mariadb; cluster: module load mariadb (module avail shows its name). "
    "Or name a server that runs: BDQM_MYSQL_URL=mysql+pymysql://USER:PASSWORD@HOST:3306"
)


@dataclass(frozen=True)
class Programs:
    """One installation of a database."""

    server: Path
    mariadb: bool  # else Oracle's MySQL
    version: str
    folders: tuple[Path, ...]  # where its other programs are

    def find(self, *names: str) -> Path:
        """The first of these programs that is there. Raises BdqmError if none is."""
        for folder in self.folders:
            for name in names:
                if (path := folder / name).is_file():
                    return path
        raise BdqmError(
            f"{' or '.join(names)} is not installed beside {self.server}; on Debian it is in mariadb-client"
        )


def find_programs(environ: Mapping[str, str] = os.environ) -> Programs:
    """The database server to use; MariaDB before MySQL in each place, the PATH first.

    Raises:
        BdqmError: there is none; the message says how to get one.
    """
    folders = tuple(dict.fromkeys(_folders(environ)))
    for folder in folders:
        for name in SERVERS:
            if os.access(server := folder / name, os.X_OK) and server.is_file():
                version = _version(server)
                others = (server.parent, server.resolve().parent, *_beside(server), *folders)
                return Programs(server, "mariadb" in version.lower(), version, tuple(dict.fromkeys(others)))
    raise BdqmError(HELP)


def _folders(environ: Mapping[str, str]) -> Iterator[Path]:
    for folder in environ.get("PATH", "").split(os.pathsep):
        if folder:
            yield Path(folder)
    yield Path(sys.executable).parent  # a conda environment that is not active
    roots = [environ[name] for name in ("CONDA_PREFIX", *MODULE_VARIABLES) if environ.get(name)]
    for root in roots:
        for part in ("bin", "sbin", "libexec", "scripts"):
            yield Path(root) / part
    yield from map(Path, SYSTEM_FOLDERS)


def _beside(server: Path) -> Iterator[Path]:
    for part in ("bin", "scripts"):
        yield server.resolve().parent.parent / part


def _version(server: Path) -> str:
    try:
        done = subprocess.run(
            [server, "--no-defaults", "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BdqmError(f"{server} does not run: {error}") from None
    return done.stdout.strip()
