"""Read a configuration: parse, validate, build. Either all of it can be used, or all its errors are told at once."""

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tabi.addr import Address, Endpoint, Name
from tabi.config.access import Access, Terms
from tabi.config.accounts import User, build_users
from tabi.config.document import Part, parse, read_parts
from tabi.config.keys import AUTH_WORDS
from tabi.config.openness import find_openings
from tabi.config.problems import ConfigurationError, KeyPath, Problem, Report
from tabi.config.rulebook import RuleBuilder
from tabi.config.settings import (
    DEFAULT_LISTEN,
    BindSettings,
    Caps,
    LogSettings,
    RaceSettings,
    Settings,
    TimeLimits,
    UdpSettings,
)
from tabi.config.tunnels import TunnelBuilder
from tabi.config.upstreams import Upstream, UpstreamBuilder
from tabi.errors import ConfigError
from tabi.policy.covering import find_covered
from tabi.policy.networks import PrivateNetworks
from tabi.policy.own import Move
from tabi.policy.rules import RuleList
from tabi.wire.socks5 import Method

__all__ = ["Configuration", "load", "load_text"]

MAX_SIZE = 64 << 20
"""Bytes: a disk image in the place of a configuration is not read into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """All that one file says. It can be pickled.

    Args:
        path: of the file.
        settings: for `Server`.
        rules: a `tabi.policy.verdict.Policy`.
        users: by name.
        access: what clients are offered when they connect.
        upstreams: by name, what rules call by ``via``.
        workers: processes; None: one per core.
        user: of this host, that workers become; None: they stay what they are.
        warnings: what is probably not meant.
    """

    path: str
    settings: Settings
    rules: RuleList
    users: Mapping[bytes, User] = field(repr=False)
    access: Access
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    workers: int | None = None
    user: str | None = None
    warnings: tuple[Problem, ...] = ()

    def terms(self, listener: Endpoint, client: Address) -> Terms:
        """Say what a client is offered: methods, and whether SOCKS4 is taken."""
        return self.access.terms(listener, client)

    def on_host(self, own: frozenset[Address]) -> "Configuration":
        """Give the same configuration for a host that has these addresses; see `PrivateNetworks.own`."""
        if own == self.rules.private.own:
            return self
        move = Move(PrivateNetworks(own))
        clients = tuple(replace(table, clients=move.clients(table.clients)) for table in self.access.clients)
        return replace(self, rules=move.rules(self.rules), access=replace(self.access, clients=clients))

    def groups(self, user: bytes | None) -> frozenset[str]:
        """Give the groups of a user; of nobody, none."""
        known = self.users.get(user) if user is not None else None
        return known.groups if known is not None else frozenset()


def load(path: str | os.PathLike[str], *, own: Iterable[Address] = ()) -> Configuration:
    """Read a configuration, and the set files that it names.

    Args:
        path: of the file; messages name it as it is given.
        own: addresses of this host, which are private as well.

    Raises:
        ConfigurationError: it cannot be read or used; all its errors and warnings are told.
    """
    file = os.fspath(path)
    text, mode = _read(file)
    return load_text(text, file, own=own, mode=mode)


def load_text(text: str, file: str, *, own: Iterable[Address] = (), mode: int = 0o600) -> Configuration:
    """Read the text of a configuration.

    Args:
        text: TOML.
        file: its name, for messages, and for the directory that set files are in.
        own: see `load`.
        mode: of the file, for who can read it.

    Raises:
        ConfigurationError: it cannot be used.
    """
    document, report = parse(text, file)
    parts = read_parts(document, report)
    return _Builder(file, parts, report, frozenset(own), mode).build()


def _read(file: str) -> tuple[str, int]:
    try:
        with open(file, "rb") as stream:
            status = os.fstat(stream.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size > MAX_SIZE:
                raise _unreadable(file, f"has {status.st_size} bytes; a configuration has at most {MAX_SIZE}")
            return stream.read(MAX_SIZE).decode(), status.st_mode
    except OSError as error:
        raise _unreadable(file, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _unreadable(file, "is not UTF-8, which TOML is", line) from None


def _unreadable(file: str, why: str, line: int = 0) -> ConfigurationError:
    return ConfigurationError((Problem(file=file, line=line, complaint=f"the file {why}"),))


class _Builder:
    """Makes a configuration of what was read."""

    def __init__(
        self, file: str, parts: Mapping[str, list[Part]], report: Report, own: frozenset[Address], mode: int
    ) -> None:
        self._file = file
        self._parts = parts
        self._top = parts[""][0]
        self._report = report
        self._own = own
        self._private = PrivateNetworks(own)
        self._tunnels = TunnelBuilder(report)
        self._is_public = bool(mode & stat.S_IROTH)

    def build(self) -> Configuration:
        report, parts = self._report, self._parts
        users = build_users(parts["user"], report)
        listeners = self._listeners(bool(parts["user"]))
        directory = Path(self._file).parent
        upstreams = UpstreamBuilder(
            directory, report, listeners=listeners, own=self._own, is_public=self._is_public
        ).build(parts["upstream"])
        rulebook = RuleBuilder(
            directory,
            parts,
            report,
            private=self._private,
            users=users,
            listeners=tuple(listeners),
            upstreams=upstreams,
            tunnels=self._tunnels,
        )
        access = Access(
            listeners=listeners,
            methods=self._default_methods(),
            clients=rulebook.clients(),
            socks4=not parts["user"],
        )
        rules = RuleList(rulebook.rules(), self._private)
        settings = self._settings(listeners, rulebook)
        self._check_passwords_can_be_had(access)
        if not report.has_errors:  # what could not be read would be taken for "any"
            self._check_openness(access, rules)
            self._warn(access, rules, users)
        if settings is None or report.has_errors:
            raise ConfigurationError(tuple(report))
        return Configuration(
            path=self._file,
            settings=settings,
            rules=rules,
            users=users,
            access=access,
            upstreams=upstreams,
            workers=self._top.get("workers"),
            user=self._top.get("run_as"),
            warnings=tuple(report),
        )

    # listeners and what they ask for

    def _default_methods(self) -> frozenset[Method]:
        methods: frozenset[Method] = self._top.get("auth") or AUTH_WORDS["password" if self._parts["user"] else "none"]
        return methods

    def _listeners(self, has_users: bool) -> dict[Endpoint, frozenset[Method]]:
        default = self._default_methods()
        found: dict[Endpoint, frozenset[Method]] = {}
        for part in self._parts["listen"]:
            endpoint: Endpoint | None = part.get("address")
            if endpoint is None:
                continue
            if endpoint in found and endpoint.port:
                self._report.error(part.path, "is there twice", "keep one of them", found=str(endpoint))
            found[endpoint] = part.get("auth") or default
        if self._parts["listen"]:
            return found
        return dict.fromkeys(DEFAULT_LISTEN, default)

    def _check_passwords_can_be_had(self, access: Access) -> None:
        """Complain where a password is asked for and nobody has one."""
        if self._parts["user"]:
            return
        wanted: list[tuple[KeyPath, Part]] = [(("auth",), self._top)]
        wanted += [((*part.path, "auth"), part) for name in ("listen", "client") for part in self._parts[name]]
        for path, part in wanted:
            if Method.USERPASS in (part.get("auth") or ()):
                complaint = "asks for a password, and there are no users"
                self._report.error(path, complaint, 'add a [[user]] for each, or write "none"')

    # settings

    def _settings(self, listeners: Iterable[Endpoint], rulebook: RuleBuilder) -> Settings | None:
        parts = self._parts
        time, cap, bind, udp, log, race = (parts[name][0] for name in ("time", "cap", "bind", "udp", "log", "race"))
        if udp.has("shared_port") and udp.has("ports"):
            self._report.error(("udp", "shared_port"), 'excludes "ports"', "keep one of them")
        trusted = rulebook.networks(self._top.entries("trusted"))
        tunnel = self._tunnels.settings(parts["tunnel"][0])
        if self._report.has_errors:
            return None
        try:
            return Settings(
                listen=tuple(listeners),
                tor_resolve=bool(self._top.get("tor_resolve")),
                time=TimeLimits(**time.values),
                cap=Caps(**cap.values),
                bind=BindSettings(**bind.values),
                udp=UdpSettings(**udp.values),
                tunnel=tunnel,
                log=LogSettings(**log.values),
                race=RaceSettings(**race.values),
                trusted=trusted,
            )
        except ConfigError as error:
            self._report.error((), str(error))
            return None

    # judgement of the whole

    def _check_openness(self, access: Access, rules: RuleList) -> None:
        for opening in find_openings(access, rules, access.listeners):
            who = "anybody on the Internet" if opening.everybody else f"public clients such as {opening.client}"
            how = " by SOCKS4" if opening.version != "5" else ""
            self._report.error(
                ("rule", opening.number),
                f"lets {who} through listener {opening.listener} without authentication{how}",
                'ask for a password, limit "from" to your networks, or write open = true in this rule',
            )

    def _warn(self, access: Access, rules: RuleList, users: Mapping[bytes, User]) -> None:
        groups = {name: user.groups for name, user in users.items()}
        covered = find_covered(rules, groups)
        for number, earlier in covered.pairs:
            line = self._report.line(("rule", earlier))
            self._report.warn(
                ("rule", number),
                f'can never match: rule "{rules.rules[earlier].name}" in line {line} takes all that it could',
                "move it up, or take it out",
            )
        if covered.compared < len(rules.rules):
            self._report.warn(
                ("rule", covered.compared),
                "from here on tabi did not look for rules that can never match: there are too many alike to compare",
            )
        plain = [number for number, part in enumerate(self._parts["user"]) if part.get("plain")]
        if plain and self._is_public:
            self._report.warn(
                ("user", plain[0], "password"),
                "is clear text in a file that every user of this host can read",
                f"run chmod o-r {self._file}, or store what `tabi passwd` prints",
            )
        for listener in access.listeners:
            if self._is_in_clear(access, listener):
                self._report.warn(
                    self._listen_path(listener),
                    "takes passwords in clear from other hosts; whoever is on the way can read them",
                    "use it within networks that you trust, or through a VPN or an SSH tunnel",
                    found=str(listener),
                )

    @staticmethod
    def _is_in_clear(access: Access, listener: Endpoint) -> bool:
        if isinstance(listener.host, Name) or listener.host.is_loopback:
            return False
        return any(Method.USERPASS in access.terms_of(listener, table).methods for table in (None, *access.clients))

    def _listen_path(self, listener: Endpoint) -> KeyPath:
        return next((part.path for part in self._parts["listen"] if part.get("address") == listener), ("listen",))
