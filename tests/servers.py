"""The platform's servers in a folder of a test's own, driven by the command line as a user does."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from bdqm_tune.mlflow_server.paths import ServerPaths
from bdqm_tune.mlflow_server.processes import free_port
from bdqm_tune.mlflow_server.settings import load_settings, save_settings
from bdqm_tune.services.connection import Connection, read_connection
from tests.forked import run


@dataclass(frozen=True)
class Servers:
    """Servers in `folder`, whether they run or not."""

    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        """Variables of a user who has these servers."""
        return os.environ | {"BDQM_SERVICES": str(self.folder)}

    @property
    def places(self) -> ServerPaths:
        return ServerPaths(self.folder)

    @property
    def connection(self) -> Connection:
        return read_connection(self.places.connection)

    def services(self, *arguments: str, status: int | None = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `bdqm-tune services …`, and see that it ends with `status` (None: any)."""
        done = run(["-m", "bdqm_tune", "services", *arguments], self.environ | variables, timeout=300)
        if status is not None:
            assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
        return done

    def copy(self, folder: Path) -> "Servers":
        """The same servers, which must be down, in another folder; they will be at another port."""
        shutil.copytree(self.folder, folder)
        for log in folder.glob("logs/*"):
            log.unlink()
        copied = Servers(folder)
        settings = load_settings(copied.places.settings)
        port = free_port("127.0.0.1")  # any, as those of the usual range are few
        save_settings(
            copied.places.settings, replace(settings, database_port=None, tracking_port=port, tracking_uris=())
        )
        return copied

    def secrets(self) -> list[str]:
        """All passwords and private keys of these servers."""
        passwords = json.loads(self.places.passwords.read_text()).values()
        keys = [path.read_text().splitlines()[1] for path in self.places.tls.glob("*.key")]
        return [*passwords, *keys]
