"""Dialling back, where somebody names addresses that swallow connections."""

from __future__ import annotations

import asyncio
import socket

from fairway.registry.wire import Accepted, Hello, Rejected

from .peers import Peer, greeted, row, running_hub


async def test_addresses_that_swallow_connections_keep_nobody_else_waiting() -> None:
    async with (
        running_hub(dial_back=True) as hub,
        await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as alive,
        greeted(hub.port, Hello(services=())) as worker,
    ):
        with socket.socket() as hole, socket.socket() as first:
            hole.bind(("127.0.0.2", 0))
            hole.listen(0)
            first.connect(hole.getsockname())  # its queue is full now: further connections get no answer
            reader, writer = await asyncio.open_connection("127.0.0.1", hub.port, local_addr=("127.0.0.2", 0))
            try:
                vandal = Peer(reader, writer)
                vandal.say(Hello(services=()))
                vandal.say(*(row(f"A{n}", hole.getsockname()[1]) for n in range(1000)))
                assert isinstance(await vandal.until(lambda message: isinstance(message, Rejected)), Rejected)
                worker.say(row("B", alive.sockets[0].getsockname()[1]))
                assert await worker.next() == Accepted("B")
            finally:
                writer.transport.abort()
