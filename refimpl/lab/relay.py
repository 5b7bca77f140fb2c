"""The program of a port forward: takes connections on a socket that it was given, and passes them on to an address.

Run by its path, in the lab's management network: `python -I relay.py DESCRIPTOR ADDRESS PORT`. The socket was made
where the lab's user is, so it takes connections there; those that the relay opens go where the relay is. A connection
goes on through a move, as the guest keeps its address and its own end of it. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

_CHUNK_BYTES = 65536
_CONNECT_S = 10.0


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end of what comes in; then close only that direction."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def serve(listener: socket.socket, address: str, port: int) -> None:
    """Pass every connection on until the process ends; one that the guest does not take is closed."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.wait_for(asyncio.open_connection(address, port), _CONNECT_S)
        except OSError as error:
            print(f"{address}:{port}: {error or 'no answer'}", file=sys.stderr, flush=True)
            writer.close()
            return
        try:
            await asyncio.gather(_pass_on(reader, there[1]), _pass_on(there[0], writer))
        finally:
            there[1].close()
            writer.close()

    server = await asyncio.start_server(take, sock=listener)
    async with server:
        await server.serve_forever()


def main(arguments: list[str]) -> None:
    """Serve the socket with that descriptor."""
    descriptor, address, port = arguments
    listener = socket.socket(fileno=int(descriptor))
    asyncio.run(serve(listener, address, int(port)))


if __name__ == "__main__":
    main(sys.argv[1:])
