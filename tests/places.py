"""Empty databases of studies, as users name them."""

from dataclasses import dataclass

from bdqm_tune.services.connection import Connection, Stores, connection_text
from tests.mariadb import MariaDb


def write_connection(stores: Stores, url: str, tracking_uri: str, user: str = "", password: str = "") -> None:
    """Write the stores' connection file, as servers do that have come up."""
    assert stores.connection_file is not None
    stores.connection_file.write_text(connection_text(Connection("here", "now", url, tracking_uri, user, password)))


@dataclass
class Place:
    """An empty database, and how a user names it."""

    stores: Stores
    server: MariaDb | None = None
    schema: str = ""

    def announce(self) -> None:
        """Write the connection file anew."""
        assert self.server is not None
        write_connection(self.stores, self.server.url(self.schema), f"sqlite:///{self.stores.home}/mlflow.db")
