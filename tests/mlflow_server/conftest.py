"""The small problem of tests/experiment, tuned here through the servers."""

from tests.experiment.conftest import configure, files, server, started_server

__all__ = ["configure", "files", "server", "started_server"]
