"""``tabi run`` and ``tabi shell``: a program, all of whose connections go through a proxy."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabi.addr import Name
    from tabi.cli.main import Commands
    from tabi.machine.hop import Hop
    from tabi.wrap.description import Wanted
    from tabi.wrap.trace import Trace

__all__ = ["EXIT_OURS", "add_parser", "run"]

EXIT_OURS = 125  # as env(1) has it: we have failed, and not the program

_EPILOG = """\
examples:
  tabi run -x socks5h://127.0.0.1:1080 -- curl http://example.org/
  tabi run -x @proxy.url -- git clone https://example.org/repository.git
  TABI_PROXY=socks5h://127.0.0.1:1080 tabi shell

The program has a network of its own that leads to the proxy alone: connections are held until the proxy has answered,
names go to the proxy, datagrams are relayed by it or refused. It hears of success only when there is one, of the true
error, and sees the true peer. It need not know of proxies, nor use a C library. `tabi run --explain` says what is
guaranteed and what is not.

Schemes: socks5h, socks4a, http; socks5 and socks4 give names to the proxy here as well.
A password is better kept in a file: @FILE stands for the URL that is written in it.
Without -x the proxy is that of TABI_PROXY, all_proxy or ALL_PROXY. no_proxy is not followed. Without a proxy nothing
is run.

Exit codes: those of the program, 128 and the number of the signal that killed it; 125 tabi itself has failed or was
misused, 126 the program cannot be run, 127 it was not found.
"""


def add_parser(commands: "Commands") -> None:
    """Register both commands."""
    for name, what, behind in (
        ("run", "run a program whose connections all go through a proxy", True),
        ("shell", "start a shell whose programs' connections all go through a proxy", False),
    ):
        parser = commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_arguments(parser)
        if behind:
            parser.add_argument(
                "program", metavar="PROGRAM", nargs=argparse.REMAINDER, help="what to run, and its arguments, behind --"
            )
        parser.set_defaults(run=run)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-x", "--proxy", metavar="URL", action="append", default=[],
        help="go through this proxy; several make a chain, the nearest first",
    )  # fmt: skip
    add("--explain", action="store_true", help="say what would happen here and what is guaranteed, and run nothing")
    add("--user", help="run it as this user, for root (default: SUDO_UID)")
    add("--strict", action="store_true", help="no capability and no set-user-id program: sudo does not work in it")
    add(
        "--keep-sockets",
        action="store_true",
        help="leave it the sockets of services outside: the session bus, systemd, containers",
    )
    add("--keep-proxy-env", action="store_true", help="leave it the variables that name a proxy")
    add(
        "--search", metavar="DOMAIN", action="append", default=[],
        help="complete names without a dot by this domain; may be given several times",
    )  # fmt: skip
    add(
        "--delay-unreachable", metavar="SECONDS", type=float, default=0.0,
        help="keep from it so long that a target is unreachable, for programs that try addresses side by side",
    )  # fmt: skip
    add(
        "--trace", action="store_true",
        help="tell on standard error of each name, connect, connection that is over and socket that sent datagrams",
    )  # fmt: skip
    add("--json", action="store_true", help="with --trace: each line is an object")
    add(
        "--inbound", metavar="PORT", action="append", default=[],
        help="have the proxy listen for this port of the program (BIND), and say where; may be given several times",
    )  # fmt: skip
    add("--rules", metavar="FILE", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Run the program, and give its exit code; 125 where we fail."""
    from tabi.errors import TabiError

    try:
        return _run(arguments)
    except BrokenPipeError:  # of --explain, whose reader has seen enough
        raise
    except (TabiError, OSError) as error:
        print(f"tabi: {error}", file=sys.stderr)
    except Exception:  # noqa: BLE001  a bug: 1 would be the program's own
        import traceback

        traceback.print_exc()
    return EXIT_OURS


def _run(arguments: argparse.Namespace) -> int:
    import asyncio
    import logging

    from tabi.wrap.description import describe, naming
    from tabi.wrap.gate import GateOptions
    from tabi.wrap.session import run_program

    wanted = _wanted(arguments)
    options = GateOptions(delay_unreachable=_seconds(arguments.delay_unreachable))
    if arguments.explain:
        from tabi.wrap.explanation import explain

        hops = naming(_hops(arguments, is_needed=False))
        print(asyncio.run(explain(wanted, hops)))
        return 0
    hops = naming(_hops(arguments, is_needed=True))
    program = describe(wanted)
    inbound = [_port(text) for text in arguments.inbound]
    logging.basicConfig(format="tabi: %(message)s")
    logging.getLogger("tabi").setLevel(logging.INFO)
    return asyncio.run(run_program(program, hops, options, _trace(arguments), inbound=inbound))


def _trace(arguments: argparse.Namespace) -> "Trace | None":
    from tabi.errors import UsageError
    from tabi.wrap.trace import Trace

    if arguments.trace:
        return Trace(_tell, as_json=arguments.json)
    if arguments.json:
        raise UsageError("--json is about the lines of --trace; give both")
    return None


def _tell(line: str) -> None:
    """Write a line of the trace, if it can be: whoever stops reading it must not stop the program's connections."""
    if sys.stderr is None:  # closed before we came
        return
    try:  # not by the stream, which would keep it, and fail again at our end
        os.write(sys.stderr.fileno(), f"{line}\n".encode(errors="backslashreplace"))
    except OSError:  # a pipe that nobody reads any more, or that is full and does not wait
        pass


def _wanted(arguments: argparse.Namespace) -> "Wanted":
    from tabi.errors import UsageError
    from tabi.wrap.description import Wanted

    if arguments.rules is not None:
        raise UsageError("--rules: this version has none yet; without it everything goes through the proxy")
    return Wanted(
        argv=_program(arguments),
        environ=dict(os.environ),
        user=arguments.user,
        strict=arguments.strict,
        keep_sockets=arguments.keep_sockets,
        keep_proxy_env=arguments.keep_proxy_env,
        search=[_domain(text) for text in arguments.search],
    )


def _program(arguments: argparse.Namespace) -> tuple[str, ...]:
    if "program" not in arguments:
        return (os.environ.get("SHELL") or "/bin/sh",)
    given: list[str] = arguments.program
    return tuple(given[1:] if given[:1] == ["--"] else given)


def _domain(text: str) -> "Name":
    from tabi.addr import Name, escape, parse_host
    from tabi.errors import UsageError

    domain = parse_host(text)
    if not isinstance(domain, Name):
        raise UsageError(f"--search: {escape(text)} is no domain")
    return domain


def _port(text: str) -> int:
    from tabi.addr import parse_port
    from tabi.errors import UsageError

    port = parse_port(text)
    if not port:
        raise UsageError("--inbound: port 0 is none that a program listens on; write that which it does")
    return port


def _seconds(given: float) -> float:
    from tabi.errors import UsageError

    if not 0 <= given <= 60:
        raise UsageError(f"--delay-unreachable: {given:g} is not 0 to 60 seconds")
    return given


def _hops(arguments: argparse.Namespace, *, is_needed: bool) -> "tuple[Hop, ...]":
    from tabi.cli.through import given
    from tabi.client.argument import read_argument
    from tabi.errors import ConfigError, UsageError
    from tabi.wrap.variables import proxy_variable

    if hops := given(arguments):
        return hops
    variable = proxy_variable(os.environ)
    if variable is None:
        if not is_needed:
            return ()
        raise UsageError(
            "no proxy, so nothing was run; name one by -x, for instance  -x socks5h://127.0.0.1:1080 , "
            "or by TABI_PROXY or ALL_PROXY"
        )
    name, url = variable
    try:
        return (read_argument(url).hop,)
    except UsageError as error:
        raise ConfigError(f"{name}: {error}") from None
