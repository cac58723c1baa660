"""What `tabi run --explain` says, in plain words: what would happen on this host, and what is guaranteed."""

import os
from collections.abc import Sequence
from dataclasses import replace

from tabi.addr import printable
from tabi.machine.hop import Hop
from tabi.wrap.description import Wanted, describe
from tabi.wrap.house import HouseError, open_house
from tabi.wrap.ladder import is_privileged
from tabi.wrap.program import Program

__all__ = ["GUARANTEED", "NOT_GUARANTEED", "explain"]

GUARANTEED = """\
What is guaranteed, for the program and all that it starts:
  - It has a network of its own with one way out, to this gate. No packet of it leaves this host: where tabi ends or is
    killed, it is cut off.
  - A connection succeeds when the proxy says so and not before, in every way of connecting, and with every program:
    static, Go, io_uring. Its peer is the true one, its error is the true one.
  - Names go to the proxy. Nobody on this host or its network is asked for them, while what hides the services that
    look names up stays where it is (see below).
  - Datagrams are relayed by the proxy, or refused when it does not (ICMP port unreachable). They never go direct.
  - What is neither TCP nor UDP goes nowhere; a ping is never answered.
"""
NOT_GUARANTEED = """\
What is not:
  - Files are shared: a program that writes where another one reads may have that one do something for it.
  - Sockets of the file system that are not masked (an ssh agent, X11, Wayland, those of your own services) lead to
    programs outside, which have the host's network. So does AF_VSOCK, in a virtual machine.
  - What is masked or covered as a single file comes back when somebody outside removes or replaces that file, as a
    service does that starts again.
  - Traffic of the kernel for file systems of the network (NFS, CIFS) that are mounted already, an automounter whose
    directory is entered, and programs that the kernel starts, for keys or core dumps.
  - The terminal is shared: where dev.tty.legacy_tiocsti is 1, or in Linux before 6.2, it can type for your shell.
  - It has no local address that the world could connect to: servers in it are reached by nobody outside, but by
    --inbound through the proxy, and the loopback of this host is not its own.
  - How much it sends and when can be seen by whoever sees your connection to the proxy.
"""
_OF_ROOT = """\
  - Made by root there is no user namespace around it: /proc/PID/root of another process of the same user shows it what
    is masked, and it may trace that process where kernel.yama.ptrace_scope is 0. An ordinary user's own `tabi run` has
    not this gap.
"""
_OF_SUDO = """\
  - A program that becomes root in it (sudo) can write to files that services of this host act upon, and so leave.
    --strict leaves no way to become root.
"""
_OF_UID_0 = """\
  - It would be root (uid 0): root's files are its own with or without capabilities, also those by which the kernel and
    the services of this host are told what to run. Name a user by --user, or do not start it as root.
"""


async def explain(wanted: Wanted, hops: Sequence[Hop]) -> str:
    """Say it, after having tried to make the house.

    Args:
        wanted: the program, which is not run; there may be none.
        hops: the proxies.

    Raises:
        UsageError: what is wanted cannot be.
    """
    program = describe(replace(wanted, argv=wanted.argv or ("PROGRAM",)))
    command = " ".join(map(printable, program.argv))
    way = ", then ".join(map(str, hops)) if hops else "none given: nothing would be run"
    tried = await _tried(program)
    lines = [f"to run:   {command}", f"as:       {_who(program)}", f"proxy:    {way}", f"here:     {tried}"]
    lines.append(_hidden(program))
    rest = NOT_GUARANTEED + (_OF_ROOT if is_privileged() else "")
    rest += _OF_SUDO if is_privileged() and not program.strict else ""
    rest += _OF_UID_0 if _uid(program) == 0 else ""
    return "\n".join([*lines, "", GUARANTEED, rest]).rstrip()


def _hidden(program: Program) -> str:
    there = sum(os.path.exists(path) for path in program.masks)
    return f"hidden:   {there} sockets or directories of services that are on this host"


def _uid(program: Program) -> int:
    return os.getuid() if program.identity is None else program.identity.uid


def _who(program: Program) -> str:
    uid = _uid(program)
    if not is_privileged():
        return f"uid {uid}, in a user namespace, without any capability; sudo does not work in it"
    if program.strict:
        return f"uid {uid}, without any capability, and none to be had"
    return f"uid {uid}; sudo works in it, without the capabilities that lead out of its network"


async def _tried(program: Program) -> str:
    """Make a house, and leave it before anybody lives there."""
    try:
        house = await open_house(program)
    except HouseError as error:
        return f"it cannot be done: {error}"
    try:
        return "it can be done" + ("" if house.tproxy else "; without tproxy, so datagrams are refused")
    finally:
        await house.close()
