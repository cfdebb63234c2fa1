"""A bad network between clients and a server, as a proxy: what it forwards is late, and now and then it breaks off.

The kernel's own (netem) would lose packets, which TCP then sends again: here that is a chunk which is later still.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random

RETRANSMISSION = 0.3  # seconds that a lost packet is later than others: the least timeout of Linux, and the way back
CHUNK = 2**16  # bytes


@dataclass
class Network:
    """What a way to a server is like, and what happened on it."""

    delay: float  # seconds, each way
    loss: float  # share of the chunks that are late
    reset: float  # share of the connections that are broken off within five seconds
    random: Random = field(default_factory=lambda: Random(0))
    connections: int = 0
    resets: int = 0
    late: int = 0

    @contextmanager
    def to(self, host: str, port: int) -> Iterator[int]:
        """The port, at the same host, of a proxy for the server in the block."""
        loop, ready = asyncio.new_event_loop(), threading.Event()
        found: list[int] = []

        async def serve() -> None:
            server = await asyncio.start_server(lambda *ends: self._connect(host, port, *ends), host, 0)
            found.append(server.sockets[0].getsockname()[1])
            ready.set()

        def run() -> None:
            loop.create_task(serve())
            loop.run_forever()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        ready.wait()
        try:
            yield found[0]
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    async def _connect(self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await asyncio.sleep(2 * self.delay)  # the handshake
        with suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection(host, port)
            ways = [self._forward(reader, server_writer), self._forward(server_reader, writer)]
            both = asyncio.gather(*ways)
            if self.random.random() < self.reset:
                with suppress(TimeoutError):
                    await asyncio.wait_for(both, self.random.uniform(0, 5))
                self.resets += 1
                server_writer.transport.abort()
            else:
                await both
        writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One way: all in order, each chunk when it is due."""
        loop, chunks = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

        async def deliver() -> None:
            content = b"begin"
            while content:
                due, content = await chunks.get()
                await asyncio.sleep(due - loop.time())
                if content:
                    writer.write(content)
                    await writer.drain()
            with suppress(OSError):
                writer.write_eof() if writer.can_write_eof() else writer.close()

        delivering, content = asyncio.create_task(deliver()), b"begin"
        with suppress(OSError):
            while content:
                with suppress(ConnectionError):
                    content = await reader.read(CHUNK)
                lost = self.random.random() < self.loss
                self.late += lost
                chunks.put_nowait((loop.time() + self.delay + RETRANSMISSION * lost, content))
            await delivering
