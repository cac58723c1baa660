"""A hundred bulk streams at once through the command, run by an ordinary user: every byte, both ways."""

import asyncio
import hashlib
import os
import random
import sys

from helpers.serving import SERVE, command
from helpers.socks import request5
from helpers.waiting import PATIENCE

STREAMS = 100
SIZE = 3_000_000
NOBODY = 65_534

# Root is under no limit of pipes (fs.pipe-user-pages-soft) and may do what others may not, so it steps down. Modules
# first: the interpreter may be where only root can read.
AS_NOBODY = (
    sys.executable,
    "-c",
    f"""\
import asyncio, contextlib, encodings.idna, importlib.util, io, os, sys
import tabi.cli.main, tabi.cli.serve
if importlib.util.find_spec("aiodns"):
    import aiodns
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    tabi.cli.main.main(["serve", "--help"])
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.exit(tabi.cli.main.main(["serve", *sys.argv[1:]]))
""",
)


def rotated(block: bytes, number: int) -> bytes:
    """Make what one stream sends; no two are alike."""
    cut = number * 997 + 1
    return block[cut:] + block[:cut]


async def receive(reader: asyncio.StreamReader) -> str:
    """Read to the end; gives the digest."""
    digest = hashlib.sha1()
    while data := await reader.read(1 << 18):
        digest.update(data)
    return digest.hexdigest()


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send all in pieces, and the end behind."""
    view = memoryview(data)
    for begin in range(0, len(view), 1 << 18):
        writer.write(view[begin : begin + (1 << 18)])
        await writer.drain()
    writer.write_eof()


class Streams:
    """Clients and their target; each connection sends and receives at once."""

    def __init__(self) -> None:
        self.block = random.Random(3).randbytes(SIZE)
        self.arrived: list[str] = []
        self.together = asyncio.Barrier(STREAMS)
        self.over = asyncio.Event()  # all targets have their streams; the clients may have theirs before

    async def target(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one stream, and send the block meanwhile."""
        digest, _ = await asyncio.gather(receive(reader), send(writer, self.block))
        self.arrived.append(digest)
        writer.close()
        if len(self.arrived) == STREAMS:
            self.over.set()

    async def client(self, proxy: tuple[str, int], there: tuple[str, int], number: int) -> str:
        """Run one stream; gives the digest of what came back."""
        reader, writer = await asyncio.open_connection(*proxy)
        writer.write(b"\x05\x01\x00" + request5(1, *there))
        answer = await reader.readexactly(12)
        assert answer[:4] == b"\x05\x00\x05\x00"
        await self.together.wait()  # all tunnels stand before the first byte goes through
        digest, _ = await asyncio.gather(receive(reader), send(writer, rotated(self.block, number)))
        writer.close()
        await writer.wait_closed()
        return digest

    async def run(self, proxy: tuple[str, int]) -> list[str]:
        """Run all; gives the digests of what the clients got."""
        server = await asyncio.start_server(self.target, "127.0.0.1", 0, backlog=STREAMS)
        async with server, asyncio.timeout(PATIENCE * 6):
            there = server.sockets[0].getsockname()
            got = await asyncio.gather(*(self.client(proxy, there, number) for number in range(STREAMS)))
            await self.over.wait()
            return got


def test_100_bulk_streams_at_once_as_an_ordinary_user_arrive_whole() -> None:
    program = AS_NOBODY if os.geteuid() == 0 else SERVE
    arguments = ("--listen", "127.0.0.1:0", "--log-format", "json")
    with command(*arguments, program=program) as server:
        (port,) = server.ports()
        if os.geteuid() == 0:
            assert os.stat(f"/proc/{server.process.pid}/task").st_uid == NOBODY
        streams = Streams()
        got = asyncio.run(streams.run(("127.0.0.1", port)))
        assert got == [hashlib.sha1(streams.block).hexdigest()] * STREAMS
        expected = {hashlib.sha1(rotated(streams.block, number)).hexdigest() for number in range(STREAMS)}
        assert len(streams.arrived) == STREAMS
        assert set(streams.arrived) == expected
        assert server.stop() == 0
    assert [(line["up"], line["down"], line["why"]) for line in server.records] == [(SIZE, SIZE, "fin")] * STREAMS
    assert [line for line in server.errors if not line.startswith(("tabi: listening", "tabi: engine"))] == []
