"""Programs that know of no proxy, through one, and none the wiser.

The program lives in a network namespace of its own, whose only way leads into a second one, the gate. There its SYNs
are held until a proxy has answered. `house` makes both; `keeper` is the process that looks after them; `session` puts
the parts together; docs/explanation/wrap.md tells how it works, and what it does not do.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabi.machine.url import ProxyLike

__all__ = ["run"]


def run(
    argv: Sequence[str],
    *,
    proxy: "ProxyLike",
    environ: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    strict: bool = False,
    keep_sockets: bool = False,
    keep_proxy_env: bool = False,
    delay_unreachable: float = 0.0,
    inbound: Sequence[int] = (),
) -> int:
    """Run a program so that all of its connections go through `proxy`, and wait for its end.

    It has our standard streams. In the first thread of a process, signals are passed on to it meanwhile.

    Args:
        argv: the program, looked for in PATH, and its arguments.
        proxy: a URL (``"socks5h://user:password@host:1080"``), or several, the nearest first. Names go to the proxy,
            whatever the scheme says.
        environ: the program's variables; None: ours. Those that name a proxy are taken out.
        cwd: where it runs; None: here.
        user: whom root runs it as, by name or number; None: SUDO_UID, or root itself where there is none.
        strict: leave it no capability to be had again, and no set-user-id program.
        keep_sockets: leave it the sockets of services that run outside, such as the session bus.
        keep_proxy_env: leave it the variables that name a proxy.
        delay_unreachable: seconds that it is kept from hearing that a target cannot be reached.
        inbound: ports that it listens on, which the last proxy is to listen for (BIND); the log of ``tabi`` says where.

    Returns:
        its exit code; 128 and the number of the signal that killed it; 126 where it cannot be run, 127 where it is not
        there, as env(1) has them.

    Raises:
        UsageError: no proxy, or what was given cannot be used.
        TabiError: the proxy does not listen for a port. The program was not run.
        HouseError: this host does not allow it; the text says what would help. The program was not run.
    """
    # Not above: the keeper, which has to be there soon, imports this package and none of these.
    import asyncio
    import os

    from tabi.errors import UsageError
    from tabi.machine.url import parse_proxies
    from tabi.wrap.description import Wanted, describe, naming
    from tabi.wrap.gate import GateOptions
    from tabi.wrap.session import run_program

    hops = naming(parse_proxies(proxy))
    if not hops:
        raise UsageError("no proxy: a program is never run without one")
    wanted = Wanted(
        argv=tuple(argv),
        environ=os.environ if environ is None else environ,
        cwd=cwd,
        user=user,
        strict=strict,
        keep_sockets=keep_sockets,
        keep_proxy_env=keep_proxy_env,
    )
    options = GateOptions(delay_unreachable=delay_unreachable)
    return asyncio.run(run_program(describe(wanted), hops, options, inbound=inbound))
