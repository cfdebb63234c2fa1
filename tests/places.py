"""Empty databases of studies, as users name them."""

from dataclasses import dataclass

from bdqm_tune.services.connection import Connection, Stores, connection_text
from tests.mariadb import MariaDb


@dataclass
class Place:
    """An empty database, and how a user names it."""

    stores: Stores
    server: MariaDb | None = None
    schema: str = ""

    def announce(self) -> None:
        """Write the connection file anew."""
        assert self.server is not None
        assert self.stores.connection_file is not None
        url = self.server.url(self.schema)
        self.stores.connection_file.write_text(connection_text(Connection("here", "now", url, "sqlite:///mlflow.db")))
