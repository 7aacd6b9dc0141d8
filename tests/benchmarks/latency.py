"""A TCP proxy that makes the loopback interface as slow as a network.

    python -m tests.benchmarks.latency LISTEN_PORT TARGET_PORT ROUND_TRIP_SECONDS

Every packet is held back for half a round trip, in each direction, and a new connection for a whole
one, as the handshake of TCP would. What is under way is not limited, so throughput is that of the
machine.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque

HOST = "127.0.0.1"


class _End(asyncio.Protocol):
    """One end of a proxied connection: what it receives, the other end sends, later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._under_way: deque[bytes | None] = deque()
        self._open_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.other: _End | None = None

    def hold_back(self, seconds: float) -> None:
        """Pass nothing on before so many seconds from now."""
        self._open_at = self._loop.time() + seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pass_on(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pass_on(None)

    def _pass_on(self, data: bytes | None) -> None:
        self._under_way.append(data)
        at = max(self._loop.time(), self._open_at) + self._delay
        self._loop.call_at(at, self._deliver)

    def _deliver(self) -> None:
        # The queue keeps the order where two timers are due at once.
        data = self._under_way.popleft()
        other = self.other
        if other is None or other._transport is None:
            # The connection behind is still being made.
            self._under_way.appendleft(data)
            self._loop.call_later(0.001, self._deliver)
        elif data is None:
            other._transport.close()
        else:
            other._transport.write(data)


async def serve(listen_port: int, target_port: int, round_trip: float) -> None:
    """Pass on connections until the process ends."""
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[None]] = set()

    async def connect(near: _End) -> None:
        far = _End(round_trip / 2)
        far.other, near.other = near, far
        await loop.create_connection(lambda: far, HOST, target_port)

    def accept() -> _End:
        near = _End(round_trip / 2)
        near.hold_back(round_trip)
        task = loop.create_task(connect(near))
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return near

    server = await loop.create_server(accept, HOST, listen_port, backlog=512)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    listen, target, seconds = sys.argv[1:]
    asyncio.run(serve(int(listen), int(target), float(seconds)))
