"""A bad network between clients and a server, as a proxy: what it forwards is late, and now and then it breaks off.

The kernel's own (netem) would lose packets, which TCP then sends again: here that is a chunk which is later still.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random

RETRANSMISSION = 0.3  # seconds that a lost packet is later than others: the least timeout of Linux, and the way back
CHUNK = 2**16  # bytes


@dataclass
class Network:
    """What a way to a server is like, and what happened on it."""

    delay: float  # seconds, each way
    loss: float  # share of the chunks that are late
    reset_every: int  # of so many connections one is broken off within five seconds; 0: none is
    random: Random = field(default_factory=lambda: Random(0))
    connections: int = 0
    resets: int = 0
    late: int = 0

    @contextmanager
    def to(self, host: str, port: int) -> Iterator[int]:
        """The port, at the same host, of a proxy for the server in the block."""
        ready, started = threading.Event(), list[tuple[int, Callable[[], object]]]()

        async def serve() -> None:
            end = asyncio.Event()
            stop = partial(asyncio.get_running_loop().call_soon_threadsafe, end.set)
            async with await asyncio.start_server(partial(self._connect, host, port), host, 0) as server:
                started.append((server.sockets[0].getsockname()[1], stop))
                ready.set()
                await end.wait()

        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        ready.wait()
        ((own, stop),) = started
        try:
            yield own
        finally:
            stop()
            thread.join()

    async def _connect(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections = number = self.connections + 1
        await asyncio.sleep(2 * self.delay)  # the handshake
        with suppress(OSError, asyncio.CancelledError):
            server_reader, server_writer = await asyncio.open_connection(host, port)
            ways = [
                asyncio.create_task(self._forward(reader, server_writer)),
                asyncio.create_task(self._forward(server_reader, writer)),
            ]
            breaks = self.reset_every > 0 and number % self.reset_every == 0
            # What one end closes is closed: neither protocol continues one way.
            _, open_ = await asyncio.wait(
                ways, timeout=self.random.uniform(0, 5) if breaks else None, return_when=asyncio.FIRST_COMPLETED
            )
            self.resets += len(open_) == len(ways)
            for way in open_:
                way.cancel()
            server_writer.transport.abort()
        writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One way: all in order, each chunk when it is due; until it is closed."""
        chunks = asyncio.Queue[tuple[float, bytes]]()
        reading = asyncio.create_task(self._read(reader, chunks))
        try:
            while True:
                due, content = await chunks.get()
                await asyncio.sleep(due - asyncio.get_running_loop().time())
                if not content:
                    return
                writer.write(content)
                await writer.drain()
        except OSError:
            return
        finally:
            reading.cancel()

    async def _read(self, reader: asyncio.StreamReader, chunks: "asyncio.Queue[tuple[float, bytes]]") -> None:
        content = b"begin"
        while content:
            try:
                content = await reader.read(CHUNK)
            except OSError:
                content = b""
            lost = self.random.random() < self.loss
            self.late += lost
            chunks.put_nowait((asyncio.get_running_loop().time() + self.delay + RETRANSMISSION * lost, content))
