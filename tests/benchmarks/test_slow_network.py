"""The bad network of the measurements: late, in order, and broken off now and then."""

import socket
import threading
import time

import pytest

from benchmarks.slow_network import Network

DELAY = 0.1


@pytest.fixture
def echo() -> int:
    """The port of a server that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        while content := connection.recv(65536):
            connection.sendall(content)
        connection.close()

    def serve() -> None:
        while True:
            threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def test_all_arrives_late_and_in_order(echo: int) -> None:
    sent = b"".join(i.to_bytes(4, "big") for i in range(50_000))
    with (
        Network(DELAY, 0.0, 0).to("127.0.0.1", echo) as port,
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        begin = time.monotonic()
        client.sendall(b"?")
        assert client.recv(1) == b"?"
        assert time.monotonic() - begin >= 4 * DELAY  # the handshake, there, and back
        threading.Thread(target=client.sendall, args=(sent,)).start()
        got = b""
        while len(got) < len(sent):
            got += client.recv(65536)
        assert got == sent


def test_connections_break_off(echo: int) -> None:
    network = Network(0.0, 0.0, 1)
    with network.to("127.0.0.1", echo) as port, socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(b"?")
        with pytest.raises(ConnectionError):
            while True:
                if client.recv(1) == b"":
                    raise ConnectionResetError
    assert network.resets == 1
