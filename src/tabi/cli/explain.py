"""``tabi explain``: say what the rules make of a request, and why."""

import argparse
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tabi.addr import Address, Endpoint
    from tabi.cli.main import Commands
    from tabi.config.explain import Explanation, Judgement, Question
    from tabi.config.load import Configuration
    from tabi.policy.verdict import Grants, Knobs, Limits, Verdict

__all__ = ["add_parser", "run"]

T = TypeVar("T")
_EPILOG = """\
example:
  tabi explain --config tabi.toml --from 10.1.2.3 --user alice connect db.example.org:5432

A name is looked up by this host's resolver only where its addresses matter and --resolve does not give them; the
answer says so. Nothing is connected to, and passwords are not checked.
"""


def add_parser(commands: "Commands") -> None:
    """Register the command."""
    parser = commands.add_parser(
        "explain",
        help="say which rule would decide a request, and why",
        description="Say which rule would decide a request, and why.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", required=True, help="the configuration")
    parser.add_argument("--from", metavar="ADDR", required=True, dest="client", help="address of the client")
    parser.add_argument("--user", metavar="NAME", help="user that it logs in as")
    parser.add_argument("--userid", metavar="TEXT", default="", help="what it claims to be (SOCKS4)")
    parser.add_argument("--listener", metavar="ADDR:PORT", help="where it comes in (default: the first in listen)")
    parser.add_argument("--version", choices=("4", "4a", "5"), default="5", help="of SOCKS (default: 5)")
    parser.add_argument(
        "--method", choices=("none", "password"), help="of authentication (default: password with --user, else none)"
    )
    parser.add_argument("--at", metavar="TIME", help='"Fri 17:05" or "2026-11-20 17:05" (default: now)')
    parser.add_argument(
        "--resolve", metavar="NAME=ADDR", action="append", default=[], help="take this for an address of the name"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("what", choices=("connect", "bind", "associate"), help="the command")
    parser.add_argument("target", metavar="HOST:PORT", help="its target; for associate that of a datagram")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Explain and print.

    Raises:
        UsageError: an argument that cannot be read.
        ConfigurationError: the file cannot be used.
    """
    import json

    from tabi.addr import printable
    from tabi.config.explain import explain, judge_before
    from tabi.config.load import load
    from tabi.net.own import own_addresses

    configuration = load(arguments.config, own=own_addresses())
    question = _question(arguments, configuration)
    addresses, told_by = _addresses(arguments, question)
    settled = judge_before(configuration, question)
    if addresses is None and (settled is None or settled.wants_addresses):
        addresses, told_by = _look_up(question, must=settled is None), "this host's resolver"
    answer = explain(configuration, question, addresses or ())
    if arguments.json:
        print(json.dumps(_as_dict(configuration, answer, told_by)))
    else:
        print("\n".join(map(printable, _lines(configuration, answer, told_by))))
    return 0


# the question


def _question(arguments: argparse.Namespace, configuration: "Configuration") -> "Question":
    from tabi.addr import Endpoint, Name, parse_host
    from tabi.config.explain import Question
    from tabi.errors import UsageError
    from tabi.policy.criteria import COMMAND_WORDS, METHOD_WORDS
    from tabi.wire.version import Version

    client = _named("--from", parse_host, arguments.client)
    if isinstance(client, Name):
        raise UsageError(f"--from: {arguments.client} is a name; write the address of a client, such as 10.1.2.3")
    if arguments.version != "5" and (arguments.user is not None or arguments.method == "password"):
        raise UsageError("SOCKS4 carries no user and password; --userid is what a client claims")
    if arguments.method == "none" and arguments.user is not None:
        raise UsageError("--method none: who logs in as --user says has sent a password; leave one of them out")
    if arguments.method == "password" and arguments.user is None:
        raise UsageError("--method password: add --user NAME, who logs in by it")
    return Question(
        client=client,
        listener=_listener(arguments, configuration),
        version=Version(arguments.version),
        method={word: method for method, word in METHOD_WORDS.items()}.get(arguments.method),
        user=None if arguments.user is None else arguments.user.encode("utf-8", "surrogateescape"),
        userid=arguments.userid.encode("utf-8", "surrogateescape"),
        command={word: command for command, word in COMMAND_WORDS.items()}[arguments.what],
        target=_named("the target", Endpoint.parse, arguments.target),
        minute_of_week=_minute(arguments.at),
    )


def _named(what: str, read: "Callable[[str], T]", text: str) -> "T":
    """Read an argument; its errors name it."""
    from tabi.errors import AddressError, UsageError

    try:
        return read(text)
    except AddressError as error:
        raise UsageError(f"{what}: {error}") from None


def _listener(arguments: argparse.Namespace, configuration: "Configuration") -> "Endpoint":
    from tabi.addr import Endpoint
    from tabi.errors import UsageError
    from tabi.policy.criteria import listener_of

    listen = configuration.settings.listen
    if not arguments.listener:
        return listen[0]
    listener = _named("--listener", Endpoint.parse, arguments.listener)
    if listener_of(listen, listener) is None:
        known = ", ".join(map(str, listen))
        raise UsageError(f"--listener: {configuration.path} does not listen on {listener}, but on {known}")
    return listener


def _minute(text: str | None) -> int:
    from datetime import datetime

    from tabi.config.problems import WrongError
    from tabi.config.times import minute_of_week
    from tabi.errors import UsageError

    try:
        # the local clock is meant, as `time` of a rule means it
        when = datetime.now().astimezone() if text is None else datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return when.weekday() * 24 * 60 + when.hour * 60 + when.minute
    try:
        return minute_of_week(text or "")
    except WrongError as error:
        raise UsageError(f'--at "{text}" {error}; write "Fri 17:05" or "2026-11-20 17:05"') from None


def _addresses(arguments: argparse.Namespace, question: "Question") -> "tuple[list[Address] | None, str]":
    """Give the addresses that --resolve has for the target; None: it has nothing."""
    from tabi.addr import Name, parse_host
    from tabi.errors import UsageError

    found: list[Address] = []
    for text in arguments.resolve:
        name, equals, address = text.partition("=")
        if not equals:
            raise UsageError(f"--resolve: {text} has no address; write NAME=ADDR, such as {text}=203.0.113.9")
        host = _named("--resolve", parse_host, address)
        if isinstance(host, Name):
            raise UsageError(f"--resolve: {address} is no address; write NAME=ADDR, such as {name}=203.0.113.9")
        if _named("--resolve", parse_host, name) == question.target.host:
            found.append(host)
    return found or None, "--resolve"


def _look_up(question: "Question", *, must: bool) -> "list[Address]":
    import socket

    from tabi.addr import socket_address
    from tabi.errors import DialError, Reply, Stage

    try:
        answers = socket.getaddrinfo(str(question.target.host), None, type=socket.SOCK_STREAM)
    except OSError as error:
        if not must:
            return []
        text = (
            f"{question.target.host}: this host's resolver finds no address ({error.strerror}); give one by --resolve"
        )
        raise DialError(text, stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE) from None
    return list(dict.fromkeys(socket_address(str(sockaddr[0])) for *_, sockaddr in answers))


# the answer, for people


def _lines(configuration: "Configuration", answer: "Explanation", told_by: str) -> "Iterator[str]":
    deciding = answer.deciding
    if deciding is None:
        yield f"refused ({answer.heard}): {answer.at_greeting}"
        return
    yield _headline(answer, deciding)
    several = len(answer.judgements) > 1
    for judgement in answer.judgements:
        if several:
            yield f"{judgement.address}: {_outcome(answer, judgement.verdict)}"
        yield from _trials(judgement)
    if answer.looked_up:
        addresses = ", ".join(str(judgement.address) for judgement in answer.judgements)
        yield f"{answer.question.target.host} is {addresses} (by {told_by})"
    elif _is_name(answer) and not answer.by_name:
        known = ", ".join(map(str, answer.shown))
        host = answer.question.target.host
        told = f"{host} is {known} (by {told_by}), but the server" if known else f"{host}: the server"
        yield f"{told} would not look it up, for no address of it would be allowed"
    if answer.allow:
        yield from _granted(configuration, answer, deciding.verdict)


def _headline(answer: "Explanation", judgement: "Judgement") -> str:
    return f"{_outcome(answer, judgement.verdict)}: {_decider(judgement.verdict)}"


def _outcome(answer: "Explanation", verdict: "Verdict") -> str:
    from tabi.config.explain import REPLY_TEXTS, SOCKS4_REFUSED

    if verdict.allow:
        return "allowed"
    if answer.question.version.value != "5":
        return f"refused (reply {SOCKS4_REFUSED}, request rejected)"
    return f"refused (reply {int(verdict.reply)}, {REPLY_TEXTS[verdict.reply]})"


def _decider(verdict: "Verdict") -> str:
    from tabi.policy.rules import RULE_0

    if verdict.number:
        note = f"; {verdict.note}" if verdict.note else ""
        return f'rule {verdict.number} "{verdict.rule}"{note}'
    return f'rule 0 "{verdict.rule}"' if verdict.rule == RULE_0 else verdict.rule


def _trials(judgement: "Judgement") -> "Iterator[str]":
    names = [f'{trial.number} "{trial.rule}"' for trial in judgement.trials]
    width = max(map(len, names), default=0)
    for name, trial in zip(names, judgement.trials, strict=True):
        yield f"  {name:{width}}   {trial.outcome}{f': {trial.why}' if trial.why else ''}"


def _granted(configuration: "Configuration", answer: "Explanation", verdict: "Verdict") -> "Iterator[str]":
    user = configuration.users.get(answer.question.user or b"")
    yield f"limits of the rule: {_limits(verdict.grants.limits)}"
    if user is not None:
        yield f"limits of {user.name.decode()}: {_limits(user.limits)}"
    grants = verdict.grants
    egress = "the address that the kernel chooses" if grants.egress is None else str(grants.egress)
    yield f"egress: {egress}{f'; IPv{grants.prefer or 6} addresses are tried first' if answer.looked_up else ''}"
    if ways := _ways(configuration, answer, grants):
        yield f"via: {ways}{_said_of_name(answer, grants)}"
    if untrusted := _untrusted(configuration, answer, grants):
        port = _port(answer)
        yield f"not trusted with {'every port' if port is None else f'port {port}'}: {', '.join(untrusted)}"
    if knobs := _knobs(grants.knobs):
        yield f"sockets of the tunnel: {knobs}"
    for word, granted in (("any_peer", grants.any_peer), ("full_cone", grants.full_cone)):
        if granted:
            yield f"{word}: yes"


def _untrusted(configuration: "Configuration", answer: "Explanation", grants: "Grants") -> list[str]:
    from tabi.policy.verdict import is_trusted

    way = grants.way(answer.question.command)
    upstreams = [configuration.upstreams[name] for name in way if name != "direct"]
    return [one.name for one in upstreams if not is_trusted(one.trust, _port(answer))]


def _port(answer: "Explanation") -> int | None:
    """Give the port that upstreams have to be trusted with, None where it is every one."""
    return answer.question.target.port if answer.question.command.name == "CONNECT" else None


def _ways(configuration: "Configuration", answer: "Explanation", grants: "Grants") -> str:
    if grants.pick == "race" and answer.question.command.name == "CONNECT":
        return f"the first that is connected of {', '.join(grants.via)}"
    if grants.pick != "weight":
        return ", then ".join(grants.upstreams)
    weights = {name: configuration.upstreams[name].weight for name in grants.via}
    total = sum(weights.values())
    shares = " or ".join(f"{name} ({weight} in {total})" for name, weight in weights.items())
    return f"{shares}, by chance, and where it has failed the others"


def _said_of_name(answer: "Explanation", grants: "Grants") -> str:
    if not _is_name(answer):
        return ""
    host = answer.question.target.host
    if not answer.by_name:
        return f"; it is asked for the address of {host}"
    here = "; for the direct way it is looked up here, and its addresses are judged" if "direct" in grants.via else ""
    if grants.resolve == "upstream":
        return f"; it looks {host} up, and no rule about addresses is asked{here}"
    return f"; it looks {host} up, for no rule could refuse any address{here}"


def _limits(limits: "Limits") -> str:
    from tabi.config.kinds import show_duration

    parts = []
    if limits.sessions is not None:
        parts.append(f"{limits.sessions} sessions at once")
    if limits.rate is not None:
        parts.append(f"{limits.rate:g} new sessions per second")
    if limits.bandwidth is not None:
        parts.append(f"{_bytes(limits.bandwidth)} per second")
    if limits.lifetime is not None:
        parts.append(f"{show_duration(limits.lifetime)} per session")
    return ", ".join(parts) or "none"


def _knobs(knobs: "Knobs") -> str:
    from tabi.config.kinds import show_duration
    from tabi.config.knobs import show_size

    parts = []
    if knobs.congestion is not None:
        parts.append(f"congestion control {knobs.congestion}")
    if knobs.keepalive is not None:
        parts.append(f"keepalive after {show_duration(knobs.keepalive)}" if knobs.keepalive else "no keepalive")
    for what, size in (("send", knobs.send_buffer), ("receive", knobs.receive_buffer)):
        if size is not None:
            parts.append(f"{what} buffer {show_size(size) if size else 'as the kernel finds right'}")
    if knobs.splice is not None:
        parts.append("splice" if knobs.splice else "no splice")
    return ", ".join(parts)


def _bytes(number: int) -> str:
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if number % 10**power == 0:
            return f"{number // 10**power} {unit}"
    return f"{number} bytes"


def _is_name(answer: "Explanation") -> bool:
    from tabi.addr import Name

    return isinstance(answer.question.target.host, Name)


# the answer, for programs


def _as_dict(configuration: "Configuration", answer: "Explanation", told_by: str) -> dict[str, object]:
    from dataclasses import asdict

    deciding = answer.deciding
    user = configuration.users.get(answer.question.user or b"")
    return {
        "allow": answer.allow,
        "target": str(answer.question.target),
        "at_greeting": answer.at_greeting or None,
        "heard": answer.heard or None,
        "decided": None if deciding is None else _verdict(deciding),
        "judgements": [
            {**_verdict(one), "trials": [asdict(trial) for trial in one.trials]} for one in answer.judgements
        ],
        "looked_up": answer.looked_up,
        "by_name": answer.by_name,
        "addresses_by": told_by if answer.looked_up or answer.shown else None,
        "user_limits": None if user is None else asdict(user.limits),
    }


def _verdict(judgement: "Judgement") -> dict[str, object]:
    from dataclasses import asdict

    verdict = judgement.verdict
    grants = {**asdict(verdict.grants), "egress": None if verdict.grants.egress is None else str(verdict.grants.egress)}
    return {
        "address": None if judgement.address is None else str(judgement.address),
        "allow": verdict.allow,
        "reply": 0 if verdict.allow else int(verdict.reply),
        "number": verdict.number,
        "rule": verdict.rule,
        "note": verdict.note,
        "grants": grants if verdict.allow else None,
    }
