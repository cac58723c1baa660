"""``tabi doctor``: say what a proxy is, and where it is wrong."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabi.addr import Endpoint
    from tabi.cli.main import Commands
    from tabi.client.doctor.patient import Expected

__all__ = ["add_parser", "run"]

EXIT_FAULTS = 1
EXIT_UNREACHABLE = 3

_EPILOG = """\
examples:
  tabi doctor socks5h://127.0.0.1:1080
  tabi doctor @proxy.url --json
  tabi doctor socks5h://192.0.2.1:1080 --target example.org:443
  tabi doctor socks5h://127.0.0.1:1080 --expect 192.0.2.9:25=not-allowed --idle 70

A proxy on this host is examined with targets that doctor starts itself, on the proxy's own address. Elsewhere it is
asked for the target that you name, and for nobody else; run doctor on the proxy's host to have everything examined.
With user and password in the URL one wrong password and one wrong user name are tried, at the end.

Verdicts: ok; WRONG: against its document, bytes are lost, or it does not tell the truth; odd: allowed, but clients
stumble over it; not offered; could not tell; not tried, with what is missing.

Exit codes: 0 no fault, 1 faults, 2 wrong usage, 3 the proxy cannot be reached.
"""


def add_parser(commands: "Commands") -> None:
    """Register the command."""
    parser = commands.add_parser(
        "doctor",
        help="examine a proxy: what it is, and where it is wrong",
        description="Examine a proxy: what it is, and where it is wrong.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", metavar="URL", help="the proxy, or @FILE: the URL is written there")
    parser.add_argument("--target", metavar="HOST:PORT", help="a TCP service that the proxy may be asked for")
    parser.add_argument(
        "--expect", metavar="HOST:PORT=REPLY", action="append", default=[],
        help="a target, and what it has to be answered by: connection-refused, host-unreachable, "
        "network-unreachable, not-allowed, ttl-expired, general-failure or succeeded; may be given several times",
    )  # fmt: skip
    parser.add_argument("--idle", metavar="SECONDS", type=float, default=0.0, help="watch its idle limits so long")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=3.0, help="for each answer (default: 3)")
    parser.add_argument("--evidence", action="store_true", help="show with each fault the bytes that it was seen in")
    parser.add_argument("--json", action="store_true", help="print JSON, with all evidence")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine, and print what is found as it is found.

    Returns:
        the exit code.

    Raises:
        BrokenPipeError: nobody reads the output any more.
    """
    import os
    import sys

    from tabi.cli.through import read_typed, seconds
    from tabi.client.doctor.patient import Patient
    from tabi.client.doctor.place import find_place
    from tabi.client.doctor.report import in_json, in_text
    from tabi.client.doctor.rounds import Rounds
    from tabi.errors import ProxyUnreachableError, UsageError

    try:
        (hop,) = read_typed([arguments.url], "the URL", "@FILE")
        target = _endpoint(arguments.target, "--target") if arguments.target else None
        expected = tuple(map(_expected, arguments.expect))
        patience = seconds(arguments)
        idle = seconds(arguments, "idle") if arguments.idle else 0.0
        place = find_place(hop.proxy, patience, target)
    except UsageError as error:
        print(f"tabi: {error}", file=sys.stderr)
        return 2
    except ProxyUnreachableError as error:
        print(f"tabi: {error}", file=sys.stderr)
        return EXIT_UNREACHABLE
    rounds = Rounds(Patient(hop, place, patience, expected, idle))
    if arguments.json:
        print(in_json(rounds))
    else:
        colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for line in in_text(rounds, colours=colours, evidence=arguments.evidence):
            print(line, flush=True)
    return EXIT_FAULTS if rounds.faults else 0


def _endpoint(text: str, what: str) -> "Endpoint":
    from tabi.addr import Endpoint
    from tabi.errors import AddressError, UsageError

    try:
        return Endpoint.parse(text)
    except AddressError as error:
        raise UsageError(f"{what}: {error}") from None


def _expected(text: str) -> "Expected":
    from tabi.client.doctor.failures import REPLIES
    from tabi.client.doctor.patient import Expected
    from tabi.errors import UsageError

    where, _, word = text.rpartition("=")
    if word not in REPLIES or not where:
        raise UsageError(f"--expect: write HOST:PORT=REPLY, where REPLY is one of {', '.join(REPLIES)}")
    return Expected(_endpoint(where, "--expect"), REPLIES[word])
