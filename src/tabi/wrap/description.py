"""What a user asks for, and the program that a house is made for: its files, its variables, what it does not see."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tabi.addr import Name
from tabi.errors import UsageError
from tabi.machine.hop import Hop
from tabi.wrap.ladder import is_privileged
from tabi.wrap.program import Identity, Program, identity_of
from tabi.wrap.side_doors import NAME_SERVICES, named, nsswitch_conf, resolv_conf, services
from tabi.wrap.variables import of_program
from tabi.wrap.wiring import GATE4, GATE6, has_ipv6

__all__ = ["Wanted", "describe", "naming"]

_NSSWITCH = Path("/etc/nsswitch.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a user asks for.

    Args:
        argv: the program and its arguments.
        environ: our variables.
        cwd: where it runs; None: here.
        user: whom root runs it as, by name or number; None: SUDO_UID, or root where there is none.
        strict: no capability and no set-user-id program.
        keep_sockets: leave it the sockets of services that run outside.
        keep_proxy_env: leave it the variables that name a proxy.
        search: domains that complete names without a dot.
    """

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    cwd: str | None = None
    user: str | None = None
    strict: bool = False
    keep_sockets: bool = False
    keep_proxy_env: bool = False
    search: Sequence[Name] = ()


def describe(wanted: Wanted) -> Program:
    """Make the program.

    Raises:
        UsageError: there is no program, no such user, only root may choose one, or a strict program would be root.
    """
    if not wanted.argv or not wanted.argv[0]:
        raise UsageError("no program: write it behind --, for instance  tabi run -x URL -- curl http://example.org/")
    identity = _identity(wanted)
    if wanted.strict and is_privileged() and (identity is None or identity.uid == 0):
        raise UsageError(
            "--strict: the program would be root, whose files those of this host are; name a user by --user"
        )
    environ = of_program(wanted.environ, keeps_proxies=wanted.keep_proxy_env)
    if identity is not None:
        environ |= identity.environ
    masks: tuple[str, ...] = NAME_SERVICES
    if not wanted.keep_sockets:
        uid = os.getuid() if identity is None else identity.uid
        masks += services(uid, wanted.environ.get("XDG_RUNTIME_DIR")) + named(wanted.environ)
    return Program(
        argv=tuple(wanted.argv),
        environ=environ,
        cwd=wanted.cwd,
        identity=identity,
        strict=wanted.strict,
        resolv=resolv_conf((GATE4, GATE6) if has_ipv6() else (GATE4,), wanted.search),
        nsswitch=nsswitch_conf(_NSSWITCH.read_text("utf-8", "surrogateescape") if _NSSWITCH.is_file() else ""),
        masks=masks,
    )


def naming(hops: Sequence[Hop]) -> tuple[Hop, ...]:
    """Have every proxy be given names: what a program asks for is never looked up on this host."""
    return tuple(replace(hop, scheme=hop.scheme.with_names) for hop in hops)


def _identity(wanted: Wanted) -> Identity | None:
    if not is_privileged():
        if wanted.user is not None:
            raise UsageError("--user is for root: everybody else's programs run as they do themselves")
        return None
    if wanted.user is not None:
        return identity_of(wanted.user)
    sudo = wanted.environ.get("SUDO_UID", "")
    if not sudo.isdecimal():
        return None
    gid = wanted.environ.get("SUDO_GID", "")
    return identity_of(sudo, int(gid) if gid.isdecimal() else None)
