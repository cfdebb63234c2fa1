"""A database server that a user has: real, apart from those that `services up` starts."""

import getpass
import os
import secrets
import shutil
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest

from bdqm_tune.mlflow_server.processes import free_port


class MariaDb:
    """A server of a test's own, with TLS, which can be killed and comes back at another port with another password."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.password, self.port = folder, "", 0
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("ca", "other"):
            self._openssl(f"req -x509 -new -nodes -days 2 -keyout {name}.key -out {name}.pem -subj /CN={name}")
        self._openssl("req -new -nodes -keyout server.key -out server.csr -subj /CN=server")
        (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
        self._openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 2 -extfile san -out server.pem")
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data", f"--user={getpass.getuser()}"]
        install += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(install, check=True, capture_output=True, env={**os.environ, "TMPDIR": str(folder)})

    def _openssl(self, command: str) -> None:
        key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1" if "-keyout" in command else ""
        subprocess.run(["openssl", *f"{command} {key}".split()], cwd=self.folder, check=True, capture_output=True)

    def start(self) -> None:
        """Start, at another port and with another password than before."""
        self.port = free_port("127.0.0.1")
        self.password = secrets.token_hex(8)
        (self.folder / "init.sql").write_text(
            "DELETE FROM mysql.global_priv WHERE User = '';\nFLUSH PRIVILEGES;\n"
            f"CREATE OR REPLACE USER worker@'%' IDENTIFIED BY '{self.password}' REQUIRE SSL;\n"
            "GRANT ALL ON *.* TO worker@'%' WITH GRANT OPTION;\n"
        )
        options = {
            "datadir": "data",
            "socket": "socket",
            "pid-file": "pid",
            "log-error": "log",
            "init-file": "init.sql",
            "ssl-ca": "ca.pem",
            "ssl-cert": "server.pem",
            "ssl-key": "server.key",
        }
        command = [f"--{name}={self.folder / file}" for name, file in options.items()]
        command += [
            f"--tmpdir={self.folder}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--max-connections=1000",
            "--max-user-connections=1000",  # some number, so that it can be changed while the server runs
        ]
        command += ["--transaction-isolation=READ-COMMITTED", "--character-set-server=utf8mb4"]
        command += ["--collation-server=utf8mb4_bin", f"--user={getpass.getuser()}"]
        self.process = subprocess.Popen([shutil.which("mariadbd") or "/usr/sbin/mariadbd", "--no-defaults", *command])
        deadline = time.monotonic() + 60
        while self.runs and time.monotonic() < deadline:
            try:
                return self.execute("SELECT 1")
            except pymysql.MySQLError:
                time.sleep(0.05)
        pytest.fail((self.folder / "log").read_text())

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def connect(self) -> Any:
        where = {"host": "127.0.0.1", "port": self.port, "ssl": {"ca": f"{self.folder}/ca.pem"}}
        return pymysql.connect(user="worker", password=self.password, autocommit=True, **where)

    def execute(self, *statements: str) -> None:
        with closing(self.connect()) as connection:
            for statement in statements:
                connection.cursor().execute(statement)

    def url(self, schema: str, host: str = "127.0.0.1", ca: str = "ca.pem") -> str:
        options = f"charset=utf8mb4&ssl_ca={self.folder / ca}"
        return f"mysql+pymysql://worker:{self.password}@{host}:{self.port}/{schema}?{options}"
