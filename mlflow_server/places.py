"""The folder of the servers: where data, secrets, logs and the connection file lie."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bdqm_tune.errors import BadInput, one_line


@dataclass(frozen=True)
class Places:
    """Paths in the folder of the servers, `~/.bdqm-tune` or `$BDQM_SERVICES`; only its owner may look into it."""

    folder: Path

    @property
    def connection(self) -> Path:
        """Where clients find the servers; there while they run."""
        return self.folder / "connection.json"

    @property
    def settings(self) -> Path:
        """Ports and versions of the last start."""
        return self.folder / "settings.json"

    @property
    def passwords(self) -> Path:
        return self.folder / "passwords.json"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the servers, for as long as it does; holds its number."""
        return self.folder / "lock"

    @property
    def data_lock(self) -> Path:
        """Held by a restore alone; shared by all others that use the data: who runs the servers, a backup."""
        return self.folder / "data.lock"

    @property
    def restoring(self) -> Path:
        """Where a restore makes what it will move into its place."""
        return self.folder / "restoring"

    @property
    def restore_record(self) -> Path:
        """What a restore is about to do; there until it is done."""
        return self.folder / "restore.json"

    @property
    def tls(self) -> Path:
        return self.folder / "tls"

    @property
    def ca(self) -> Path:
        """The certificate that clients verify the servers by."""
        return self.tls / "ca.pem"

    @property
    def database(self) -> Path:
        """Configuration and data directory of the database."""
        return self.folder / "database"

    @property
    def data(self) -> Path:
        return self.database / "data"

    @property
    def mlflow(self) -> Path:
        """Working folder and configuration of the MLflow server."""
        return self.folder / "mlflow"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def backups(self) -> Path:
        return self.folder / "backups"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def log(self, server: str) -> Path:
        """The log of `services`, `database` or `mlflow`."""
        return self.logs / f"{server}.log"

    @property
    def socket(self) -> Path:
        """The database's socket.

        On the node's own disk: a path over 107 characters is too long for a socket, and network file systems have none.
        """
        name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"bdqm-tune-{os.getuid()}-{name}" / "database.sock"

    def make(self) -> None:
        """Make the folders, open to their owner only.

        Raises:
            BadInput: that cannot be, or the place is somebody else's.
        """
        folders = [self.folder, self.tls, self.database, self.mlflow, self.artifacts, self.backups, self.logs]
        for folder in [*folders, self.socket.parent]:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                if folder.stat().st_uid != os.getuid():
                    raise BadInput(f"{folder} belongs to another user; choose a folder of your own: BDQM_SERVICES")
                folder.chmod(0o700)
            except OSError as error:
                raise BadInput(f"{folder}: no place for the servers: {one_line(error)}; set BDQM_SERVICES") from None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
