"""The proxies that are measured: tabi's two builds, the programs of others, and two limits that speak no SOCKS.

Each says whether it is here (and how it is installed), what it can do, and how it is started: one worker, in the
foreground, as cheap as its own options make it. Others log nothing where that can be told them; tabi judges by rules
and logs one line for each session.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.configuration import LOGIN, tabi_configuration

__all__ = ["DIRECT", "Peer", "Setup", "known_peers", "tabi_at", "tabi_variant"]

_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_ROOT = Path(__file__).parents[2]
# What haproxy reserves descriptors for, two for each: hard limits are often 20,000.
_MOST_TUNNELS, _MOST_PIPES = 9_100, 400

SOCKS, PASSWORD, NAME, SIX, UDP, RELOAD = "socks", "password", "name", "ipv6", "udp", "reload"
"""What a proxy can do, and a point of an axis may need."""
_ALL_OF_IT = frozenset({SOCKS, PASSWORD, NAME, SIX, UDP})


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What one start of a proxy is for.

    Attributes:
        directory: for its files; the proxy may write there.
        host: where it listens: 127.0.0.1 or ::1.
        port: the same; the two ports after it are its own as well.
        login: whether clients log in.
        target: base port of the target.
        targets: how many addresses it has.
        rules: how many rules tabi is to have.
        tail: what the end of tabi's file says besides.
    """

    directory: Path
    host: str
    port: int
    login: bool
    target: int
    targets: int
    rules: int = 0
    tail: str = ""

    def write(self, name: str, text: str) -> Path:
        """Write one of its files."""
        file = self.directory / name
        file.write_text(text)
        return file

    @property
    def address(self) -> str:
        """Where it listens, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One proxy.

    Attributes:
        name: what it is called on command lines and in tables.
        kind: "ours", "peer", or "limit" for what is no SOCKS proxy and stands outside all ratios.
        does: its abilities.
        start: writes its files and gives its command line.
        program: the path of its program; None: not here.
        install: what would bring it here.
        version: what it says of itself.
        environment: variables of its own.
        note: for the legend.
        tail: of tabi's file, for a variant.
    """

    name: str
    kind: str = "peer"
    does: frozenset[str] = frozenset()
    start: Callable[[str, Setup], list[str]] | None = None
    program: str | None = None
    install: str = ""
    version: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    tail: str = ""

    def command(self, setup: Setup) -> list[str]:
        """Write its files and give its command line."""
        assert self.start is not None
        assert self.program is not None
        return self.start(self.program, setup)


DIRECT = Peer(name="direct", kind="limit", does=frozenset({SIX, UDP}), note="no proxy: what generator and target reach")


def known_peers(*, hev: str | None = None, threeproxy: str | None = None) -> list[Peer]:
    """List all proxies that this program knows, in the order of the tables.

    Args:
        hev: path of hev-socks5-server, which is in no Debian; None looks for it in the PATH.
        threeproxy: the same of 3proxy.
    """
    return [
        DIRECT,
        _apt("haproxy", "haproxy", _haproxy, (), ("-v",), kind="limit", note="TCP mode: a relay without SOCKS"),
        _apt("microsocks", "microsocks", _microsocks, (SOCKS, PASSWORD, NAME, SIX), (), note="a thread for a client"),
        _apt("dante", "danted", _dante, (SOCKS, NAME, SIX, UDP), ("-v",), package="dante-server", note="processes"),
        _apt("ss-local", "ss-local", _ss_local, (SOCKS, NAME, SIX), ("-h",), package="shadowsocks-libev",
             note="all by-passed: connects by itself"),
        _given("hev", hev, "hev-socks5-server", _hev, ("--version",), "HEV"),
        _given("3proxy", threeproxy, "3proxy", _threeproxy, ("--help",), "THREEPROXY"),
        *_tabi("tabi", "", Path(sys.executable)),
    ]  # fmt: skip


def tabi_at(name: str, checkout: Path) -> list[Peer]:
    """Give the two builds of another checkout, to compare commits."""
    return _tabi(name, "", checkout / ".venv" / "bin" / "python")


def tabi_variant(name: str, lines: str) -> list[Peer]:
    r"""Give the two builds with more lines in the rule that lets through, which is the last table of the file.

    A ``\n`` is the end of a line, for shells in which that is not easily written.
    """
    return _tabi("tabi", f"-{name}", Path(sys.executable), lines.replace(r"\n", "\n") + "\n")


# --- finding ------------------------------------------------------------------------------------------------------


def _apt(
    name: str,
    program: str,
    start: Callable[[str, Setup], list[str]],
    does: tuple[str, ...],
    ask: tuple[str, ...],
    *,
    package: str | None = None,
    kind: str = "peer",
    note: str = "",
) -> Peer:
    found = shutil.which(program, path=_PATH)
    install = f"`make bench-peers`, or as root: apt-get install {package or name}"
    version = _version(found, ask) if found and ask else _package_version(package or name)
    return Peer(
        name=name,
        kind=kind,
        does=frozenset(does),
        start=start,
        program=found,
        install=install,
        version=version,
        note=note,
    )


def _given(
    name: str,
    path: str | None,
    program: str,
    start: Callable[[str, Setup], list[str]],
    ask: tuple[str, ...],
    variable: str,
) -> Peer:
    found = shutil.which(path or program, path=_PATH)
    install = f"not in Debian; build it and say where it is: {variable}=/path/to/{program} make bench"
    if path and not found:
        install = f"{path} is not a program that can be run"
    version = _version(found, ask) if found else ""
    return Peer(name=name, does=_ALL_OF_IT, start=start, program=found, install=install, version=version)


def _tabi(name: str, suffix: str, python: Path, tail: str = "") -> list[Peer]:
    built = _version(str(python), ("-m", "tabi", "--version")) if python.exists() else ""
    shared = {"kind": "ours", "does": _ALL_OF_IT | {RELOAD}, "start": _start_tabi, "tail": tail}
    compiled = Peer(
        name=f"{name}{suffix}",
        program=str(python) if built and "pure" not in built else None,
        install="`make setup` builds the compiled engine where there is a C compiler",
        version=built,
        note="compiled engine",
        **shared,  # type: ignore[arg-type]  # a dictionary of several types
    )
    pure = Peer(
        name=f"{name}-pure{suffix}",
        program=str(python) if built else None,
        install=f"{python} has no tabi; run `make setup` there",
        version=_version(str(python), ("-m", "tabi", "--version"), TABI_PURE="1") if built else "",
        environment={"TABI_PURE": "1"},
        note="pure Python",
        **shared,  # type: ignore[arg-type]  # the same
    )
    return [compiled, pure]


def _version(program: str, ask: tuple[str, ...], **environment: str) -> str:
    """Give the first line with a digit of what a program says of itself."""
    try:
        done = subprocess.run(
            [program, *ask],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).splitlines()
    return next((line.strip() for line in lines if re.search(r"\d\.\d", line)), "")


def _package_version(package: str) -> str:
    dpkg = shutil.which("dpkg-query")
    if not dpkg:
        return ""
    call = [dpkg, "--show", "--showformat=${Version}", package]
    return subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip()


# --- starting -----------------------------------------------------------------------------------------------------


def _start_tabi(python: str, setup: Setup) -> list[str]:
    setup.write("tabi.toml", tabi_configuration(setup.address, login=setup.login, rules=setup.rules) + setup.tail)
    files = ["--config", str(setup.directory / "tabi.toml"), "--control", str(setup.directory / "control.sock")]
    return [python, "-m", "tabi", "serve", *files, "--workers", "1"]


def _microsocks(program: str, setup: Setup) -> list[str]:
    login = ["-u", LOGIN[0], "-P", LOGIN[1]] if setup.login else []
    return [program, "-i", setup.host, "-p", str(setup.port), *login]


def _dante(program: str, setup: Setup) -> list[str]:
    anywhere = "from: 0.0.0.0/0 to: 0.0.0.0/0", "from: ::/0 to: ::/0"
    lines = [
        "errorlog: stderr",
        f"internal: {setup.host} port = {setup.port}",
        "external: lo",
        "clientmethod: none",
        "socksmethod: none",
        *(f"client pass {{ {one} }}" for one in anywhere),
        *(f"socks pass {{ {one} }}" for one in anywhere),
    ]
    return [program, "-f", str(setup.write("danted.conf", "\n".join(lines) + "\n")), "-p", str(setup.directory / "pid")]


def _ss_local(program: str, setup: Setup) -> list[str]:
    # The server that it would send to is never asked: everything is by-passed.
    acl = setup.write("bypass.acl", "[bypass_all]\n")
    unused = ["-s", "127.0.0.1", "-p", "1", "-k", "unused", "-m", "aes-128-gcm"]
    here = ["-b", setup.host, "-l", str(setup.port), "-t", "3600", "--no-delay"]
    return [program, *unused, *here, "--acl", str(acl)]


def _haproxy(program: str, setup: Setup) -> list[str]:
    lines = [
        "global", "  nbthread 1", f"  maxconn {_MOST_TUNNELS}", f"  maxpipes {_MOST_PIPES}",
        "defaults", "  mode tcp", "  option splice-auto",
        "  timeout connect 5s", "  timeout client 1h", "  timeout server 1h",
    ]  # fmt: skip
    for kind in range(3):  # echo, sink, source
        lines += [f"listen kind{kind}", f"  bind {setup.address.rpartition(':')[0]}:{setup.port + kind}"]
        lines += [
            f"  server s{number} 127.0.0.{number}:{setup.target + kind}" for number in range(1, setup.targets + 1)
        ]
    return [program, "-db", "-f", str(setup.write("haproxy.cfg", "\n".join(lines) + "\n"))]


def _hev(program: str, setup: Setup) -> list[str]:
    lines = [
        "main:", "  workers: 1", f"  port: {setup.port}", f"  listen-address: '{setup.host}'",
        "misc:", "  limit-nofile: 65535", "  log-level: error",
    ]  # fmt: skip
    if setup.login:
        lines += ["auth:", f"  username: {LOGIN[0]}", f"  password: {LOGIN[1]}"]
    return [program, str(setup.write("hev.yml", "\n".join(lines) + "\n"))]


def _threeproxy(program: str, setup: Setup) -> list[str]:
    login = [f"users {LOGIN[0]}:CL:{LOGIN[1]}", "auth strong", f"allow {LOGIN[0]}"] if setup.login else ["auth none"]
    lines = ["maxconn 20000", *login, f"socks -i{setup.host} -p{setup.port}"]
    return [program, str(setup.write("3proxy.cfg", "\n".join(lines) + "\n"))]
