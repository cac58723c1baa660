"""Building the rules, the tables of clients and the sets."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabi.addr import Endpoint
from tabi.config.access import ClientTable
from tabi.config.accounts import User, limits_of
from tabi.config.document import Entry, Part
from tabi.config.hosts import SetName
from tabi.config.kinds import hint
from tabi.config.problems import Report, shown
from tabi.config.sets import make_hosts, read_set
from tabi.config.times import WEEK
from tabi.config.tunnels import KNOB_KEYS, TunnelBuilder
from tabi.config.upstreams import Upstream
from tabi.errors import Reply
from tabi.policy.criteria import (
    COMMAND_WORDS,
    METHOD_WORDS,
    Choice,
    Clients,
    Criterion,
    Hosts,
    Listeners,
    Ports,
    Target,
    Times,
    Userids,
    Users,
)
from tabi.policy.names import glob
from tabi.policy.networks import NetworkSet, PrivateNetworks
from tabi.policy.rule import Rule
from tabi.policy.spans import Spans
from tabi.policy.verdict import DIRECT, Grants
from tabi.wire.version import Version

__all__ = ["RuleBuilder"]

PRIVATE_NAME = "private"
_SHOWN = 8  # entries that `tabi explain` lists

_ALLOW_ONLY = (
    "open", "any_peer", "full_cone", "egress", "prefer", "connect", "idle", "half_open",
    "sessions", "rate", "bandwidth", "lifetime", "auth", "literals", "via", "pick", "resolve", *KNOB_KEYS,
)  # fmt: skip
_GRANTS = ("any_peer", "full_cone", "egress", "prefer", "connect", "idle", "half_open", "log", "pick", "resolve")


@dataclass(frozen=True, slots=True)
class _Sides:
    """The entries of a key: those that are meant, and those that are not."""

    meant: tuple[Entry, ...]
    left_out: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "_Sides":
        entries = tuple(entries)
        return cls(
            tuple(entry for entry in entries if not entry.negated), tuple(entry for entry in entries if entry.negated)
        )

    def spans(self, of: Callable[[Any], Iterable[tuple[int, int]]], end: int) -> Spans:  # Any: a value of its kind
        """Join the spans of those meant (all numbers up to `end` where none is) and take the others out."""
        meant = Spans(span for entry in self.meant for span in of(entry.value))
        left_out = Spans(span for entry in self.left_out for span in of(entry.value))
        return (meant if self.meant else Spans([(0, end)])) - left_out


class RuleBuilder:
    """Makes rules of what was read; the sets are read here, each once.

    Args:
        directory: that names of set files start from.
        parts: of the configuration.
        report: takes what is wrong.
        private: what ``@private`` is.
        users: that rules can name.
        listeners: that rules can name.
        upstreams: that rules can name.
        tunnels: makes what rules say of them.
    """

    def __init__(
        self,
        directory: Path,
        parts: Mapping[str, list[Part]],
        report: Report,
        *,
        private: PrivateNetworks,
        users: Mapping[bytes, User],
        listeners: tuple[Endpoint, ...],
        upstreams: Mapping[str, Upstream],
        tunnels: TunnelBuilder,
    ) -> None:
        self._parts = parts
        self._report = report
        self._private = private
        self._users = users
        self._groups = frozenset(group for user in users.values() for group in user.groups)
        self._listeners = listeners
        self._upstreams = upstreams
        self._tunnels = tunnels
        self._sets = {PRIVATE_NAME: Hosts(networks=private, inside=private)}
        self._read_sets(directory)

    def _read_sets(self, directory: Path) -> None:
        for part in self._parts["set"]:
            name: str | None = part.get("name")
            file: str | None = part.get("file")
            if name is not None and not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
                accepted = "letters, digits, dots, hyphens and underscores make one"
                self._report.error((*part.path, "name"), "is no name of a set", accepted, found=shown(name))
            elif name in self._sets:
                why = "is built in" if name == PRIVATE_NAME else "is there already"
                self._report.error((*part.path, "name"), why, "choose another name", found=shown(name))
            if name is None:
                continue
            hosts = Hosts()
            if file is not None:
                try:
                    hosts, problems = read_set(directory / file, self._private)
                except OSError as error:
                    path = (*part.path, "file")
                    self._report.error(path, f"cannot be read: {error.strerror}", found=shown(str(directory / file)))
                    problems = []
                for problem in problems:
                    self._report.take(problem)
            self._sets.setdefault(name, hosts)

    # what is shared by rules and client tables

    def networks(self, entries: Iterable[Entry]) -> NetworkSet:
        """Make one set of entries, for keys that have no ``!``."""
        return NetworkSet(network for networks in self._network_sets(entries) for network in networks)

    def clients(self) -> tuple[ClientTable, ...]:
        """Make the ``[[client]]`` tables."""
        return tuple(
            ClientTable(
                clients=self._from(part) or Clients(within=()), methods=part.get("auth"), socks4=part.get("socks4")
            )
            for part in self._parts["client"]
        )

    def _from(self, part: Part) -> Clients | None:
        entries = part.entries("from")
        if not entries:
            return None
        sides = _Sides.of(entries)
        return Clients(
            within=self._network_sets(sides.meant), but=self._network_sets(sides.left_out), shown=_listed(entries)
        )

    def _network_sets(self, entries: Iterable[Entry]) -> tuple[NetworkSet, ...]:
        """Take networks written here as one set, and the sets that are named, which hold no names."""
        hosts = self._hosts(entries)
        for entry in entries:
            if isinstance(entry.value, SetName) and len(self._sets.get(entry.value.name, Hosts()).names):
                self._report.error(
                    entry.path,
                    "is a set with names in it",
                    "clients are known by networks only",
                    found=shown(entry.text),
                )
        return tuple(one.networks for one in hosts)

    def _hosts(self, entries: Iterable[Entry]) -> tuple[Hosts, ...]:
        written = [entry.value for entry in entries if not isinstance(entry.value, SetName)]
        found = [make_hosts(iter(written), self._private)] if written else []
        for entry in entries:
            if isinstance(entry.value, SetName):
                hosts = self._sets.get(entry.value.name)
                if hosts is None:
                    known = f"known are {', '.join(f'@{name}' for name in self._sets)}"
                    near = hint(f"@{entry.value.name}", (f"@{name}" for name in self._sets))
                    self._report.error(
                        entry.path, "is no set", f"{known}; add a [[set]]{near}", found=shown(f"@{entry.value.name}")
                    )
                else:
                    found.append(hosts)
        return tuple(found)

    # rules

    def rules(self) -> tuple[Rule, ...]:
        """Make the rules, in their order."""
        names: dict[str, int] = {}
        rules = []
        for number, part in enumerate(self._parts["rule"], 1):
            rule = self._rule(number, part)
            if rule.name in names:
                complaint = f"is the name of the rule in line {names[rule.name]} as well"
                self._report.error(
                    (*part.path, "name"), complaint, "logs would not tell them apart", found=shown(rule.name)
                )
            names.setdefault(rule.name, self._report.line(part.path))
            rules.append(rule)
        return tuple(rules)

    def _rule(self, number: int, part: Part) -> Rule:
        self._check_action(part)
        allow = part.has("allow")
        target = self._to(part)
        criteria: list[Criterion | None] = [
            self._from(part), self._listener(part), *self._choices(part), self._user(part, allow=allow),
            self._userid(part), self._time(part), self._port(part), target,
        ]  # fmt: skip
        literals = part.get("literals")
        return Rule(
            name=part.get("name") or f"rule {number}",
            allow=allow,
            reply=part.get("refuse") or Reply.NOT_ALLOWED,
            criteria=tuple(criterion for criterion in criteria if criterion is not None),
            target=target,
            auth=frozenset(entry.value for entry in part.entries("auth")),
            literals=literals is not False,
            open=bool(part.get("open")),
            grants=Grants(
                limits=limits_of(part), knobs=self._tunnels.knobs(part), via=self._via(part), **part.given(_GRANTS)
            ),
        )

    def _check_action(self, part: Part) -> None:
        if part.has("allow") and part.has("refuse"):
            self._report.error((*part.path, "refuse"), "stands beside allow", "keep one of them")
        elif not any(part.has(key) or key in part.meant for key in ("allow", "refuse")):
            self._report.error(part.path, "does nothing", 'write allow = true, or refuse = "not-allowed"')
        if part.has("refuse") and not part.has("allow"):
            for key in _ALLOW_ONLY:
                if part.has(key):
                    self._report.error((*part.path, key), "has no effect in a rule that refuses", "take it out")

    def _via(self, part: Part) -> tuple[str, ...]:
        via = part.entries("via")
        if not via and part.has("via") and "via" not in part.faulty:
            self._report.error((*part.path, "via"), "is empty", "leave it out to connect directly", found="[]")
        for entry in via:
            if entry.value != DIRECT:
                self._check_upstream(entry, by_name=part.get("resolve") == "upstream")
            elif part.get("pick") != "race" and "pick" not in part.faulty:
                advice = 'leave via out to connect directly, or write pick = "race"'
                self._report.error(entry.path, "can only race with upstreams", advice, found=shown(DIRECT))
        for key in ("pick", "resolve"):
            if part.has(key) and not part.has("via"):
                self._report.error((*part.path, key), "has no effect without via", "name an upstream by via")
        names = tuple(dict.fromkeys(entry.value for entry in via))
        if len(names) == 1 and part.get("pick") not in (None, "order"):
            advice = "name others in via, or take it out"
            self._report.error((*part.path, "pick"), "has no effect with one way", advice)
        return names

    def _check_upstream(self, entry: Entry, *, by_name: bool) -> None:
        upstream = self._upstreams.get(entry.value)
        if upstream is None:
            known = ", ".join(f'"{name}"' for name in self._upstreams)
            advice = f"known are {known}{hint(entry.value, self._upstreams)}" if known else "add an [[upstream]]"
            self._report.error(entry.path, "is no upstream", advice, found=shown(entry.value))
        elif by_name and upstream.hops and not upstream.takes_names:
            complaint = f'looks no names up, for its last proxy is written as {upstream.hops[-1].scheme.value}'
            advice = f'write {upstream.hops[-1].scheme.with_names.value} there, or resolve = "here"'
            self._report.error(entry.path, complaint, advice, found=shown(entry.value))

    def _listener(self, part: Part) -> Listeners | None:
        entries = part.entries("listener")
        for entry in entries:
            if self._listeners and entry.value not in self._listeners:
                known = ", ".join(map(str, self._listeners))
                self._report.error(entry.path, "is not listened on", f"listen has {known}", found=str(entry.value))
        if not entries:
            return None
        sides = _Sides.of(entries)
        return Listeners(
            known=self._listeners,
            within=frozenset(entry.value for entry in sides.meant),
            but=frozenset(entry.value for entry in sides.left_out),
            shown=_listed(entries),
        )

    @staticmethod
    def _choices(part: Part) -> list[Choice]:
        """Make the criteria that are words; what is left out is taken from all that there are."""
        universes: dict[str, Iterable[str]] = {
            "version": (version.value for version in Version),
            "method": METHOD_WORDS.values(),
            "command": COMMAND_WORDS.values(),
        }
        choices = []
        for key, universe in universes.items():
            if entries := part.entries(key):
                sides = _Sides.of(entries)
                meant = frozenset(entry.value for entry in sides.meant) or frozenset(universe)
                left_out = frozenset(entry.value for entry in sides.left_out)
                choices.append(Choice(key, meant - left_out, _listed(entries)))
        return choices

    def _user(self, part: Part, *, allow: bool) -> Users | None:
        entries = part.entries("user")
        if not entries:
            return None
        for entry in entries:
            self._check_user(entry)
        sides = _Sides.of(entries)
        return Users(
            names=_names(sides.meant),
            groups=_groups(sides.meant),
            not_names=_names(sides.left_out),
            not_groups=_groups(sides.left_out),
            nobody=not allow and not sides.meant,
            shown=_listed(entries),
        )

    def _check_user(self, entry: Entry) -> None:
        text: str = entry.value
        if text.startswith("@"):
            known, what = self._groups, "no user is in such a group"
            missing = text[1:] not in known
        else:
            known, what = frozenset(name.decode() for name in self._users), "there is no such user"
            missing = text not in known
        if missing:
            near = hint(text, (f"@{name}" for name in known) if text.startswith("@") else known)
            self._report.error(entry.path, "names nobody", f"{what}{near}", found=shown(text))

    @staticmethod
    def _userid(part: Part) -> Userids | None:
        entries = part.entries("userid")
        sides = _Sides.of(entries)
        return (
            Userids(
                patterns=tuple(_claim(entry.value) for entry in sides.meant),
                but=tuple(_claim(entry.value) for entry in sides.left_out),
                shown=", ".join(f'"{entry.text}"' for entry in entries),
            )
            if entries
            else None
        )

    @staticmethod
    def _time(part: Part) -> Times | None:
        entries = part.entries("time")
        return Times(_Sides.of(entries).spans(iter, WEEK), _listed(entries)) if entries else None

    @staticmethod
    def _port(part: Part) -> Ports | None:
        entries = part.entries("port")
        if not entries:
            return None
        return Ports(_Sides.of(entries).spans(lambda span: [(span[0], span[1] + 1)], 1 << 16), _listed(entries))

    def _to(self, part: Part) -> Target | None:
        entries = part.entries("to")
        if not entries:
            return None
        sides = _Sides.of(entries)
        return Target(
            within=self._hosts(sides.meant),
            but=self._hosts(sides.left_out),
            shown=_listed(sides.meant),
            shown_but=_listed(sides.left_out).replace("!", ""),
        )


def _listed(entries: Iterable[Entry]) -> str:
    texts = [entry.text for entry in entries]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _names(entries: Iterable[Entry]) -> frozenset[bytes]:
    return frozenset(entry.value.encode() for entry in entries if not entry.value.startswith("@"))


def _groups(entries: Iterable[Entry]) -> frozenset[str]:
    return frozenset(entry.value[1:] for entry in entries if entry.value.startswith("@"))


def _claim(pattern: str) -> re.Pattern[bytes]:
    return re.compile(glob(pattern).encode(), re.DOTALL)
