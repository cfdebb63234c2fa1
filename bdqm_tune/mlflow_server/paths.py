"""The folder of the servers: where data, secrets, logs and the connection file lie."""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bdqm_tune.errors import BadInput, BdqmError, one_line
from bdqm_tune.files import is_private, private_folder, written_whole

LONGEST_PARENT = 107 - 60  # bytes, as a socket's path has 107 at most


@dataclass(frozen=True)
class ServerPaths:
    """Paths in the folder of the servers, `~/.bdqm-tune` or `$BDQM_SERVICES`; only its owner may read it."""

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
    def authority(self) -> Path:
        """The key that signs the servers' certificates; without it they are made again."""
        return self.tls / "ca.key"

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
        """The database's socket, where the last start of it on any node put it, whatever the caller's environment.

        Raises:
            BdqmError: none has been started, or an earlier version of this program did it.
        """
        path = self._last_socket()
        if path is None:
            raise BdqmError(
                f"{self.database} does not say where the database's socket is; "
                "bdqm-tune services down, then up, puts that right"
            )
        return path

    def claim_socket(self) -> None:
        """Have a folder for the socket on this node, which nobody else can foresee or read.

        On the node's own disk: network file systems have no sockets. That of the last start is used again if it is
        still there, and private.

        Raises:
            BadInput: there is no place for it.
        """
        last = self._last_socket()
        if last is not None and is_private(last.parent):
            return
        try:
            parent = tempfile.gettempdir()
            if len(os.fsencode(parent)) > LONGEST_PARENT:
                parent = "/tmp"  # nosec B108
            folder = Path(tempfile.mkdtemp(prefix=self._socket_prefix, dir=parent))
        except OSError as error:
            raise BadInput(f"no place for the database's socket: {one_line(error)}; set TMPDIR") from None
        write_private(self._socket_file, f"{folder / 'database.sock'}\n")

    def release_socket(self) -> None:
        """Remove the socket's folder from the node once no server uses it."""
        last = self._last_socket()
        if last is not None and is_private(last.parent):
            shutil.rmtree(last.parent, ignore_errors=True)

    @property
    def _socket_file(self) -> Path:
        return self.database / "socket"

    @property
    def _socket_prefix(self) -> str:
        """Of the folder's name; a copy of the servers' folder must not take that of the original."""
        return f"bdqm-tune-{os.getuid()}-{hashlib.sha256(bytes(self.folder.resolve())).hexdigest()[:12]}-"

    def _last_socket(self) -> Path | None:
        try:
            path = Path(self._socket_file.read_text(encoding="utf-8").rstrip("\n"))
        except FileNotFoundError:
            return None
        return path if path.parent.name.startswith(self._socket_prefix) else None

    def make(self) -> None:
        """Make the folders, open to their owner only.

        Raises:
            BadInput: that cannot be, or the place is somebody else's.
        """
        for folder in (self.folder, self.tls, self.database, self.mlflow, self.artifacts, self.backups, self.logs):
            try:
                private_folder(folder)
            except BadInput as error:
                raise BadInput(f"{error}; BDQM_SERVICES=FOLDER names another place") from None
            except OSError as error:
                raise BadInput(f"{folder}: no place for the servers: {one_line(error)}; set BDQM_SERVICES") from None


def state_of(path: Path) -> tuple[int, int] | None:
    """The identity of a file, which changes when it is written again; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all, on the disk when this returns."""
    with written_whole(path, 0o600, on_disk=True) as file:
        file.write(text.encode())
