"""`tabi run` as users start it, through a tabi on loopback, by root and by an ordinary user."""

import errno
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

from helpers.houses import why_no_tproxy
from helpers.name_service import NameService
from helpers.programs import need
from helpers.serving import Running, allow_all, serving
from helpers.waiting import PATIENCE, until
from helpers.web import PAGE, Site, site
from tabi import wrap
from tabi.addr import Endpoint
from tabi.errors import UsageError
from tabi.wrap.ladder import is_privileged
from tabi.wrap.linux import SOL_PACKET, attach_filter

NAME = f"run-{os.getpid()}.example"  # nobody else on this host asks for it, whatever tests run beside this one
DNS_NAME = b"".join(bytes((len(label),)) + label.encode() for label in NAME.split("."))  # RFC 1035 section 3.1
NOWHERE = "203.0.113.7"  # a documentation address: nobody is asked for it but the proxy, who refuses
_COMMAND = (sys.executable, "-m", "tabi", "run")
_READY = "ready\n"
_STEPS = ("tabi: user namespace", "tabi: network namespace", "tabi: links", "tabi: packet filter", "tabi: files of")


class World(NamedTuple):
    """A proxy, a site that it reaches under a name, and how `tabi run` is started."""

    proxy: Running
    names: NameService
    site: Site
    as_user: tuple[str, ...]

    @property
    def url(self) -> str:
        """The proxy's."""
        host, port = self.proxy.address
        return f"socks5h://{host}:{port}"

    @contextmanager
    def start(self, *arguments: str, **popen: Any) -> "Iterator[subprocess.Popen[str]]":
        """Begin; where the test fails meanwhile, all that was started is killed."""
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        given = {"text": True, "env": environment(), "start_new_session": True, "stdin": subprocess.DEVNULL, **pipes}
        with subprocess.Popen([*self.as_user, *_COMMAND, *arguments], **given | popen) as process:
            try:
                yield process
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise

    def run(self, *program: str, options: Sequence[str] = ()) -> tuple[int, str, str]:
        """Run a program to its end; give its code, output and what was said besides."""
        with self.start("-x", self.url, *options, "--", *program) as process:
            out, err = process.communicate(timeout=3 * PATIENCE)
        return process.returncode, out, err


def line_of(stream: IO[str] | None) -> str:
    """Read a line, and no more of it than that; fail where none comes."""
    assert stream is not None
    line, deadline = b"", time.monotonic() + 3 * PATIENCE
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing comes after {line!r}"
        if not (byte := os.read(stream.fileno(), 1)):
            break
        line += byte
    return line.decode()


def environment() -> dict[str, str]:
    """Give ours without what would choose a proxy or a user."""
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and name != "SUDO_UID"}


def unprivileged(*kept: str) -> tuple[str, ...]:
    """Say how a command loses the capabilities of root; one has to stay, or it may not map its own number."""
    bounding = ",".join(["-all", *(f"+{one}" for one in kept)])
    return (need("setpriv"), "--bounding-set", bounding, "--inh-caps", "-all", "--ambient-caps", "-all")


@cache
def why_not_as(as_user: tuple[str, ...]) -> str | None:
    """Say why nobody who is started so can make a house, None where he can."""
    command = [*as_user, *_COMMAND, "-x", "socks5h://127.0.0.1:9", "--", "true"]  # of which nothing is wanted
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(),
        timeout=3 * PATIENCE,
    )  # fmt: skip
    said = done.stderr.strip()
    is_refused = (done.returncode == 125 and said.startswith(_STEPS)) or said.startswith("setpriv: ")
    return f"no house can be made without privileges: {said}" if is_refused else None


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Running, NameService, Site]]:
    """Run the proxy and the site."""
    with site() as pages, serving() as proxy:
        names = NameService({NAME: ["127.0.0.1"]}).serve(proxy)
        yield proxy, names, pages


@pytest.fixture(params=["root", "user"])
def world(served: tuple[Running, NameService, Site], request: pytest.FixtureRequest) -> World:
    """Give the world of root, or of somebody without any capability."""
    is_root = is_privileged()
    if request.param == "root" and not is_root:
        pytest.skip("only root can")
    lowered = unprivileged("setfcap") if request.param == "user" and is_root else ()
    if request.param == "user" and (reason := why_not_as(lowered)) is not None:
        pytest.skip(reason)
    return World(*served, lowered)


@pytest.fixture
def one_world(served: tuple[Running, NameService, Site]) -> World:
    """Give the world of whoever runs the tests."""
    return World(*served, ())


def test_curl_gets_a_page_by_a_name_that_only_the_proxy_knows(world: World) -> None:
    curl = need("curl")
    with watching() as seen:
        code, out, err = world.run(curl, "-sS", f"http://{NAME}:{world.site.port}/")
        packets = seen()
    assert (code, out, err) == (0, PAGE.decode(), "")
    world.proxy.line(target=f"{NAME}:{world.site.port}", reply=0)
    assert [one for one in those(packets) if DNS_NAME in one] == []
    assert [one for one in those(packets) if is_of_the_gate(one)] == []


# Classic BPF, linux/filter.h: all packets but TCP over IPv4 from 127.0.0.0/8, which is the tests' own and may be much.
_WATCHED = [
    (0x30, 0, 0, 0), (0x54, 0, 0, 0xF0), (0x15, 0, 5, 0x40),  # the version is 4
    (0x30, 0, 0, 9), (0x15, 0, 3, socket.IPPROTO_TCP),
    (0x30, 0, 0, 12), (0x15, 0, 1, 127),  # the first byte of the source
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFF),
]  # fmt: skip


@contextmanager
def watching() -> Iterator[Callable[[], list[bytes] | None]]:
    """Record every packet of this host; calling what it gives takes them out. None: we may not see any."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(3))
    except PermissionError:
        yield lambda: None
        return
    with sock:
        attach_filter(sock, _WATCHED)
        with suppress(PermissionError):
            sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE: nothing is to be missed

        def take() -> list[bytes]:
            packets = []
            while True:
                try:
                    packets.append(sock.recv(65_536))
                except BlockingIOError:
                    break
            _, missed = struct.unpack("II", sock.getsockopt(SOL_PACKET, 6, 8))  # PACKET_STATISTICS
            assert not missed, f"{missed} packets were not seen"
            return packets

        yield take


def those(packets: list[bytes] | None) -> list[bytes]:
    """Give them; leave a test whose last part wants to see packets where that is not allowed."""
    if packets is None:
        pytest.skip("all but the last part is right; for that one packets have to be seen (CAP_NET_RAW)")
    return packets


def is_of_the_gate(packet: bytes) -> bool:
    """Say whether a packet has an address of the gate's, or that which only the proxy may be asked for."""
    if packet[0] >> 4 == 4:
        return any(host[:2] in (b"\xc6\x12", b"\xc6\x13") or host == socket.inet_aton(NOWHERE)
                   for host in (packet[12:16], packet[16:20]))  # fmt: skip
    return any(host[:6] == bytes.fromhex("fd0005ec0000") for host in (packet[8:24], packet[24:40]))


_ASK = """\
import errno, socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
"""


@pytest.mark.parametrize("world", ["user"], indirect=True)
def test_a_refusal_of_the_target_is_the_programs_error(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        _, out, _ = world.run(sys.executable, "-c", _ASK, NAME, str(taken.getsockname()[1]))
    assert out == "ECONNREFUSED\n"


def test_a_trace_tells_of_names_and_connects(one_world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        code, _, err = one_world.run(sys.executable, "-c", _ASK, NAME, str(port), options=["--trace", "--json"])
    assert code == 0, err
    told = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert {one["name"] for one in told if one["event"] == "name"} == {NAME}
    connects = {(one["to"], one["verdict"]) for one in told if one["event"] == "connect"}
    assert connects == {(f"{NAME}:{port}", "refused")}


_DATAGRAM = """\
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(30)
sock.connect((sys.argv[1], int(sys.argv[2])))
sock.send(b"question")
print(sock.recv(100).decode())
"""


def test_a_datagram_goes_to_a_name_by_the_proxy_and_its_answer_comes_back(one_world: World) -> None:
    if (reason := why_no_tproxy()) is not None:
        pytest.skip(reason)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(PATIENCE)
        program = (sys.executable, "-c", _DATAGRAM, NAME, str(target.getsockname()[1]))
        with one_world.start("-x", one_world.url, "--", *program) as process:
            data, relay = target.recvfrom(100)
            assert data == b"question"
            target.sendto(b"answer", relay)
            assert process.communicate(timeout=PATIENCE) == ("answer\n", "")
    one_world.proxy.line(command="udp_associate", up=8, down=6)


_LISTENING = """\
import socket
with socket.create_server(("", 5000)) as server:
    print("ready", flush=True)
    sock, peer = server.accept()
    with sock:
        print(peer, flush=True)
        sock.sendall(b"welcome")
"""


def test_what_the_program_listens_on_is_reached_through_the_proxy(one_world: World) -> None:
    with serving(policy=allow_all) as proxy:
        url = "socks5h://{}:{}".format(*proxy.address)
        command = ("-x", url, "--inbound", "5000", "--", sys.executable, "-c", _LISTENING)
        with one_world.start(*command) as process:
            place = Endpoint.parse(line_of(process.stderr).rpartition(" ")[2].strip())
            assert line_of(process.stdout) == _READY
            with socket.create_connection((str(place.host), place.port), PATIENCE) as sock:
                # A loopback address cannot be shown in another namespace: the gate stands for it.
                assert line_of(process.stdout).startswith("('198.18.0.1', ")
                assert sock.recv(100) == b"welcome"


def test_a_port_that_the_proxy_does_not_listen_for_is_125_and_runs_nothing(one_world: World, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code, _, err = one_world.run("touch", str(marker), options=["--inbound", "5000"])
    assert code == 125
    assert one_world.url in err
    assert not marker.exists()


def test_a_program_is_what_it_would_be_without_us(world: World, tmp_path: Path) -> None:
    script = 'pwd; echo "$0|$1|$http_proxy$ALL_PROXY|$KEPT"; cat; exit 7'
    variables = environment() | {"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "x", "KEPT": "yes"}
    command = [*world.as_user, *_COMMAND, "-x", world.url, "--", "sh", "-c", script, "zero", "-x"]
    done = subprocess.run(
        command, check=False, input="given\n", capture_output=True, text=True, cwd=tmp_path, env=variables,
        timeout=3 * PATIENCE,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (7, f"{tmp_path}\nzero|-x||yes\ngiven\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--", "touch", "FILE"), "no proxy, so nothing was run"),
        (("-x", "socks5h://127.0.0.1:1080", "--"), "no program"),
        (("-x", "nonsense://127.0.0.1", "--", "touch", "FILE"), "nonsense"),
        (("-x", "socks5h://127.0.0.1:1080", "--rules", "x", "--", "touch", "FILE"), "--rules"),
        (("-x", "socks5h://127.0.0.1:1080", "--user", "no such user", "--", "touch", "FILE"), "user"),
    ],
)
def test_what_cannot_be_is_125_and_runs_nothing(
    one_world: World, arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    with one_world.start(*(str(marker) if one == "FILE" else one for one in arguments)) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 125
    assert err.startswith("tabi: ")
    assert words in err
    assert not marker.exists()


def test_where_a_step_is_refused_nothing_is_run_and_the_remedy_is_said(one_world: World, tmp_path: Path) -> None:
    if not is_privileged():
        pytest.skip("only root can take so much away")
    lowered = unprivileged()  # not even its own number may be mapped
    for command, is_wanted in (("true",), True), ((need("unshare"), "--user", "--map-root-user", "true"), False):
        tried = subprocess.run([*lowered, *command], check=False, capture_output=True, text=True, timeout=3 * PATIENCE)
        if (tried.returncode == 0) != is_wanted:
            pytest.skip(f"root without capabilities is another here: {tried.stderr.strip() or 'it may be mapped'}")
    marker = tmp_path / "marker"
    world = one_world._replace(as_user=lowered)
    code, _, err = world.run("touch", str(marker))
    assert code == 125
    assert err.startswith("tabi: user namespace: ")
    assert len(err.splitlines()) > 1
    assert not marker.exists()


def test_explaining_runs_nothing(one_world: World, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code, out, _ = one_world.run("touch", str(marker), options=["--explain"])
    assert code == 0
    assert one_world.url in out
    assert "it can be done" in out
    assert not marker.exists()


def test_from_python_it_is_a_call(one_world: World, capfd: pytest.CaptureFixture[str]) -> None:
    code = wrap.run(("sh", "-c", "echo here; exit 4"), proxy=one_world.url, environ=environment())
    assert (code, capfd.readouterr().out) == (4, "here\n")
    with pytest.raises(UsageError, match="no proxy"):
        wrap.run(("true",), proxy=None)


def test_a_signal_to_us_is_one_to_the_program(one_world: World) -> None:
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    with one_world.start("-x", one_world.url, "--", "sh", "-c", script) as process:
        assert line_of(process.stdout) == _READY
        process.terminate()
        assert process.wait(PATIENCE) == 9


# Blocked, it cannot come between the word and the wait.
_INTERRUPTED = """\
import signal, sys
is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("ready", flush=True)
signal.sigwait([signal.SIGINT])
sys.exit(5 if is_ours else 6)
"""


# A process of its own, for one with threads should not fork. Where tests run in the background of a shell the signal is
# ignored, and what is ignored stays so.
_TERMINAL = """\
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
said = b""
while b"ready" not in said:
    said += os.read(terminal, 1000)
os.write(terminal, b"\\x03")
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_an_interrupt_from_the_terminal_is_the_programs(one_world: World) -> None:
    inside = (*_COMMAND, "-x", one_world.url, "--", sys.executable, "-c", _INTERRUPTED)
    command = [sys.executable, "-c", _TERMINAL, *inside]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment(), timeout=3 * PATIENCE)
    assert (done.stdout, done.stderr) == ("5\n", "")


_HOSTILE = """\
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def told(*arguments):
    ctypes.set_errno(0)
    return libc.syscall(*arguments) < 0 and errno.errorcode[ctypes.get_errno()]
keeper = os.getppid()
with open(f"/proc/{keeper}/status") as lines:
    tabi = int(next(line.split()[1] for line in lines if line.startswith("PPid")))
for pid in (keeper, tabi):
    for path in (f"/proc/{pid}/ns/net", f"/proc/{pid}/mem"):
        try:
            print(os.open(path, os.O_RDONLY))
        except OSError as error:
            print(errno.errorcode[error.errno])
    pidfd = os.pidfd_open(pid)
    print(told(PTRACE, 0x4206, pid, 0, 0), told(438, pidfd, 3, 0), told(SETNS, pidfd, 0x40000000))
"""


def test_a_program_gets_no_hold_of_us_or_of_the_keeper(world: World) -> None:
    """Both have sockets that lead out: they are neither traced nor robbed of them (ptrace(2), pidfd_getfd(2))."""
    numbers = {"x86_64": (101, 308), "aarch64": (117, 268)}.get(os.uname().machine)
    if numbers is None:
        pytest.skip("the numbers of system calls are not known here")
    if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (5, 8):
        pytest.skip("setns(2) takes a process only since Linux 5.8")
    program = _HOSTILE.replace("PTRACE", str(numbers[0])).replace("SETNS", str(numbers[1]))
    _, out, err = world.run(sys.executable, "-c", program)
    assert (out, err) == ("EACCES\nEACCES\nEPERM EPERM EPERM\n" * 2, "")


_ORPHAN = """\
import errno, os, socket, sys
print(os.getppid(), flush=True)
sys.stdin.readline()
while True:
    sock = socket.socket()
    sock.settimeout(0.1)
    try:
        sock.connect(("203.0.113.7", 80))
        print("connected")
    except TimeoutError:
        continue
    except OSError as error:
        print(error.errno)
    break
"""


@pytest.mark.parametrize("world", ["user"], indirect=True)
def test_a_program_whose_tabi_is_killed_has_no_way_out_and_nothing_stays(world: World) -> None:
    command = ("-x", world.url, "--", sys.executable, "-c", _ORPHAN)
    with watching() as seen:
        with world.start(*command, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            keeper = int(line_of(process.stdout))
            process.kill()
            assert process.wait(PATIENCE) == -signal.SIGKILL
            process.stdin.write("\n")
            process.stdin.flush()
            assert line_of(process.stdout) == f"{errno.ENETUNREACH}\n"
            packets = seen()
    until(lambda: not Path(f"/proc/{keeper}").exists(), "the keeper to end")
    assert [one for one in those(packets) if is_of_the_gate(one)] == []
