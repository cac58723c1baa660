"""A house as its program finds it, and the sockets of its gate as we do."""

import asyncio
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest

from helpers.houses import looped, program, resident, why_no_tproxy
from helpers.ipv6 import why_no_ipv6
from helpers.looping import run
from helpers.waiting import PATIENCE
from tabi.addr import Endpoint
from tabi.wrap import netlink
from tabi.wrap.house import HouseError, open_house
from tabi.wrap.ladder import is_privileged
from tabi.wrap.linux import CLONE_NEWNET, DANGEROUS, IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR, cap_effective
from tabi.wrap.program import Identity

TARGETS = {4: "203.0.113.7", 6: "2001:db8::7"}  # documentation addresses: nothing of them ever leaves the house
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
RESOLV = "nameserver 198.18.0.1\n"
TARGET_ADDRESS = IPv4Address("203.0.113.7")
# Where modules for tunnels are loaded every namespace has one of each, and it is down.
_OF_MODULES = frozenset({
    "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6_vti0", "teql0",
})  # fmt: skip
_ALL_USERS = 1 << 6 | 1 << 7  # CAP_SETGID and CAP_SETUID, linux/capability.h


async def readable(sock: socket.socket) -> None:
    """Wait until there is something to read."""
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    loop.add_reader(sock, there.set)
    try:
        async with asyncio.timeout(PATIENCE):
            await there.wait()
    finally:
        loop.remove_reader(sock)


def target_of(packet: bytes) -> tuple[str, int]:
    """Give destination and port of a TCP packet (RFC 791, RFC 8200; RFC 9293 section 3.1)."""
    if packet[0] >> 4 == 4:
        host, segment = packet[16:20], packet[(packet[0] & 15) * 4 :]
    else:
        host, segment = packet[24:40], packet[40:]
    return str(ip_address(host)), int.from_bytes(segment[2:4], "big")


def original(ancillary: list[tuple[int, int, bytes]]) -> tuple[str, int]:
    """Give where a datagram was meant to go (ip(7), IP_RECVORIGDSTADDR: a socket address)."""
    ((_, kind, data),) = ancillary
    port = struct.unpack_from("!H", data, 2)[0]
    if kind == IP_RECVORIGDSTADDR:
        return socket.inet_ntoa(data[4:8]), port
    assert kind == IPV6_RECVORIGDSTADDR
    return str(IPv6Address(data[8:24])), port


def skip_without(version: int) -> None:
    """Skip where there is no such version of IP."""
    if version == 6 and (reason := why_no_ipv6()) is not None:
        pytest.skip(reason)


def skip_without_tproxy() -> None:
    """Skip where no datagram reaches the gate."""
    if (reason := why_no_tproxy()) is not None:
        pytest.skip(reason)


@looped
async def test_a_house_has_its_own_network_and_files(tmp_path: Path) -> None:
    hidden = tmp_path / "bus"
    hidden.mkdir()
    (hidden / "socket").touch()
    door = tmp_path / "door"
    door.touch()
    masks = (str(hidden), str(door), str(tmp_path / "absent"))
    async with resident(resolv=RESOLV, nsswitch="hosts: files dns\n", masks=masks) as one:
        links = [name for _, name in await one.call("socket.if_nameindex()")]
        assert [name for name in links if name not in _OF_MODULES] == ["lo", "e0"]
        assert await one.call("pathlib.Path('/etc/resolv.conf').read_text()") == RESOLV
        assert await one.call("pathlib.Path('/etc/nsswitch.conf').read_text()") == "hosts: files dns\n"
        assert await one.call(f"os.listdir({str(hidden)!r})") == []
        assert await one.call(f"os.stat({str(door)!r}).st_mode & 0o777") == 0
        assert await one.call("os.readlink('/proc/self/ns/net')") != os.readlink("/proc/self/ns/net")
    assert (hidden / "socket").exists()
    resolv = Path("/etc/resolv.conf")
    assert not resolv.exists() or resolv.read_text() != RESOLV


@pytest.mark.parametrize("version", [4, 6])
@looped
async def test_a_syn_is_shown_and_goes_nowhere(version: int) -> None:
    skip_without(version)
    async with resident() as one:
        await one.call(f"kept.setdefault('sock', socket.socket(socket.AF_INET{'' if version == 4 else 6})).fileno()")
        await one.call("kept['sock'].setblocking(False)")
        connecting = await one.call(f"kept['sock'].connect_ex(({TARGETS[version]!r}, 80))")
        assert connecting == errno.EINPROGRESS
        await readable(one.house.sockets.syns)
        assert target_of(one.house.sockets.syns.recv(65_536)) == (TARGETS[version], 80)
        # TCP_SYN_SENT of the kernel's include/net/tcp_states.h
        assert await one.call("kept['sock'].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]") == 2


@pytest.mark.parametrize("version", [4, 6])
@looped
async def test_a_datagram_comes_with_its_target_and_is_answered_from_there(version: int) -> None:
    skip_without(version)
    skip_without_tproxy()
    target = (TARGETS[version], 5000)
    async with resident() as one:
        sockets = one.house.sockets
        await one.call(f"kept.setdefault('sock', socket.socket({int(FAMILY[version])}, socket.SOCK_DGRAM)).fileno()")
        await one.call(f"kept['sock'].sendto(b'question', {target!r})")
        ours = sockets.udp4 if version == 4 else sockets.udp6
        await readable(ours)
        data, ancillary, _, source = ours.recvmsg(100, 100)
        assert (data, original(ancillary)) == (b"question", target)
        answering = await one.house.transparent(FAMILY[version], socket.SOCK_DGRAM, Endpoint.parse(
            f"[{target[0]}]:5000" if version == 6 else f"{target[0]}:5000"))  # fmt: skip
        with answering:
            answering.sendto(b"answer", source)
            assert await one.call("[(data.decode(), who[:2]) for data, who in [kept['sock'].recvfrom(100)]]") == [
                ["answer", list(target)]
            ]


@pytest.mark.parametrize("version", [4, 6])
@looped
async def test_questions_for_names_come_to_the_responder_alone(version: int) -> None:
    skip_without(version)
    async with resident() as one:
        sockets = one.house.sockets
        at = version == 6
        asked = sockets.names_udp[at].getsockname()[:2]
        kind = int(FAMILY[version])
        await one.call(f"socket.socket({kind}, socket.SOCK_DGRAM).sendto(b'name?', {asked!r})")
        await readable(sockets.names_udp[at])
        assert sockets.names_udp[at].recv(100) == b"name?"
        await one.call(f"kept.setdefault('tcp', socket.create_connection({asked!r}, {PATIENCE})).fileno()")
        sockets.names_tcp[at].accept()[0].close()
        for nothing in (sockets.syns, sockets.udp4, sockets.udp6):
            with pytest.raises(BlockingIOError):
                nothing.recv(100)


@looped
async def test_no_other_protocol_is_answered_in_the_place_of_its_target() -> None:
    """The gate has every address, and would answer a ping for all the world."""
    skip_without_tproxy()
    async with resident() as one:
        if "errno" in str(await one.call("kept.setdefault('icmp', socket.socket(2, socket.SOCK_RAW, 1)).fileno()")):
            pytest.skip("no raw sockets for an ordinary user")
        await one.call("kept['icmp'].sendto(bytes.fromhex('0800f7fd00010001'), ('203.0.113.7', 0))")
        # What comes after it in the same order is there: so the answer would have been.
        await one.call("kept.setdefault('udp', socket.socket(2, socket.SOCK_DGRAM)).sendto(b'x', ('203.0.113.7', 9))")
        await readable(one.house.sockets.udp4)
        await one.call("kept['icmp'].setblocking(False)")
        assert await one.call("kept['icmp'].recv(100).hex()") == {"errno": errno.EAGAIN}


_HOSTILE = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def told(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0

def called(name, *arguments):
    ctypes.set_errno(0)
    getattr(libc, name)(*arguments)
    return ctypes.get_errno()

def tried(outside, kind, route):
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    netlink.send(bytes.fromhex(route))
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    return {
        "the namespace outside": told(os.open, outside, os.O_RDONLY),
        "its own namespace": called("setns", own, kind),
        "a mount": called("umount2", b"/etc/resolv.conf", 2),
        "a packet socket": told(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0),
        "a route": -int.from_bytes(netlink.recv(100)[16:20], "little", signed=True),
        "a mount, as root of a namespace": called("unshare", 0x10020000) or called("umount2", b"/etc/resolv.conf", 2),
    }
"""


@looped
async def test_a_hostile_program_is_told_no() -> None:
    route = netlink.default_route(1, TARGET_ADDRESS).encode(1).hex()
    async with resident(resolv=RESOLV, strict=True) as one:
        assert await one.call(f"exec({_HOSTILE!r}, kept)") is None
        told = await one.call(f"kept['tried']('/proc/{os.getpid()}/ns/net', {CLONE_NEWNET}, {route!r})")
    # A host may forbid such namespaces, or have too many; in one of its own the mount is locked, mount_namespaces(7).
    assert told.pop("a mount, as root of a namespace") in (errno.EINVAL, errno.EPERM, errno.ENOSPC, errno.EUSERS)
    assert told == {
        "the namespace outside": errno.EACCES,
        "its own namespace": errno.EPERM,
        "a mount": errno.EPERM,
        "a packet socket": errno.EPERM,
        "a route": errno.EPERM,
    }


_CAPABILITIES = """
with open('/proc/self/status') as lines:
    found = {line.split()[0]: int(line.split()[1], 16) for line in lines if line[:3] == 'Cap'}
"""


@looped
async def test_the_bounding_set_of_root_loses_what_leads_out_and_keeps_the_rest() -> None:
    if not is_privileged():
        pytest.skip("an ordinary user's programs have no capabilities anyway")
    async with resident() as one:
        await one.call(f"exec({_CAPABILITIES!r}, kept)")
        found = await one.call("kept['found']")
    lost = sum(1 << number for number in DANGEROUS)
    lines = Path("/proc/self/status").read_text().splitlines()
    before = next(int(line.split()[1], 16) for line in lines if line.startswith("CapBnd"))
    assert found == {
        "CapInh:": 0, "CapPrm:": before & ~lost, "CapEff:": before & ~lost, "CapBnd:": before & ~lost, "CapAmb:": 0
    }  # fmt: skip


@looped
async def test_root_runs_the_program_as_somebody_else() -> None:
    if not is_privileged() or cap_effective() & _ALL_USERS != _ALL_USERS:
        pytest.skip("only root can")
    identity = Identity(uid=65534, gid=65533, groups=(65532,), environ={})
    ended = await ending(
        "/bin/sh", "-c", 'test "$(id -u) $(id -g) $(id -G)" = "65534 65533 65533 65532"', identity=identity
    )
    assert ended == 0


async def ending(*argv: str, **fields: Any) -> int:
    """Run a program in a house and give its exit code."""
    house = await open_house(program(*argv, **fields))
    try:
        house.start()
        return await house.wait()
    finally:
        await house.close()


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL),
        (("/etc/passwd",), 126),
        (("/nonexistent/program",), 127),
    ],
)
def test_exit_codes_are_those_of_the_program_or_of_env(argv: tuple[str, ...], code: int) -> None:
    assert run(ending(*argv)) == code


def test_a_file_of_no_known_format_is_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('exit "$1"\n')
    script.chmod(0o755)
    assert run(ending(str(script), "3")) == 3
    assert run(ending("script", "4", environ={"PATH": str(tmp_path)})) == 4


def test_a_directory_that_is_hidden_is_so_for_who_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "socket").touch()
    monkeypatch.chdir(tmp_path)
    assert run(ending("/bin/sh", "-c", "test ! -e socket", masks=(str(tmp_path),))) == 0


def test_a_directory_that_is_gone_is_our_own_failure() -> None:
    assert run(ending("true", cwd="/nonexistent")) == 125


@looped
async def test_a_program_gets_its_signals_and_keeps_those_that_were_ignored() -> None:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        async with resident() as one:
            await one.call("kept.setdefault('signal', __import__('signal')) and None")
            assert await one.call("kept['signal'].getsignal(12) == kept['signal'].SIG_IGN")
            assert await one.call("kept['signal'].getsignal(10) == kept['signal'].SIG_DFL")
            assert await one.call("kept['signal'].pthread_sigmask(0, (10,)) == set()")
            one.house.signal(signal.SIGUSR1)
            assert await one.call("kept['signal'].sigwait((10,))") == signal.SIGUSR1
    finally:
        signal.signal(signal.SIGUSR2, before)


@looped
async def test_a_socket_of_the_outside_is_not_inherited_and_a_pipe_is() -> None:
    """Whoever starts us may have left one open; it would lead past the gate."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        outside.set_inheritable(True)
        reading, writing = os.pipe()
        os.set_inheritable(reading, True)
        try:
            async with resident() as one:
                assert await one.call(f"os.fstat({outside.fileno()}).st_mode") == {"errno": errno.EBADF}
                assert await one.call(f"os.fstat({reading}).st_ino") == os.fstat(reading).st_ino
        finally:
            os.close(reading)
            os.close(writing)


@pytest.mark.parametrize("fd", [0, 1])
def test_a_program_whose_standard_stream_is_of_the_network_does_not_begin(fd: int, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        command = [sys.executable, "-m", "tabi", "run", "-x", "socks5h://127.0.0.1:9", "--", "touch", str(marker)]
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        streams[("stdin", "stdout")[fd]] = sock
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True, timeout=3 * PATIENCE, **streams)
    assert done.returncode == 125
    assert f"descriptor {fd} is a socket of the network" in done.stderr
    assert "put a pipe between" in done.stderr
    assert not marker.exists()


def test_a_tunnel_device_is_not_inherited() -> None:
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no tunnels here: {error}")
    try:
        os.set_inheritable(fd, True)
        assert run(ending("sh", "-c", f"! test -e /proc/self/fd/{fd}")) == 0
    finally:
        os.close(fd)


_STAYING = """
import os, sys, time
os.write(int(sys.argv[1]), b"begun")
time.sleep(1000)
"""


@looped
async def test_a_keeper_that_dies_is_told_and_leaves_the_program_without_a_way() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    with open(reading, "rb") as begun:
        house = await open_house(program(sys.executable, "-c", _STAYING, str(writing)))
        os.close(writing)
        house.start()
        there, _, _ = select.select([begun], [], [], PATIENCE)
    try:
        assert there, "the program has not begun"
        os.kill(house._keeper.pid, signal.SIGKILL)
        with pytest.raises(HouseError, match="has died"):
            await house.wait()
        with pytest.raises(ConnectionError):
            await house.transparent(socket.AF_INET, socket.SOCK_DGRAM, None)
    finally:
        await house.close()
        with suppress(ProcessLookupError):
            os.kill(house.pid, signal.SIGKILL)
