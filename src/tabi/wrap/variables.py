"""Variables of the environment: which proxy is meant for programs, and what the program inside is not to find there."""

from collections.abc import Mapping
from typing import Final

from tabi.wrap.side_doors import NAME_VARIABLES

__all__ = ["PROXY_VARIABLES", "of_program", "proxy_variable"]

PROXY_VARIABLES: Final = ("TABI_PROXY", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY")
"""What programs take a proxy from, in either case. Inside there is none to be reached, and no need of it."""


def proxy_variable(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Find the variable that says which proxy to use: TABI_PROXY, then all_proxy as curl has it, lower case first.

    no_proxy has no part in it: nothing goes around the proxy that nobody has asked for by an option.

    Returns:
        its name and what it says; None where there is none, or it is empty.
    """
    for name in ("TABI_PROXY", "all_proxy", "ALL_PROXY"):
        if environ.get(name):
            return name, environ[name]
    return None


def of_program(environ: Mapping[str, str], *, keeps_proxies: bool) -> dict[str, str]:
    """Give the program's variables: all but those by which it would look for a proxy, or for names elsewhere.

    Args:
        environ: ours.
        keeps_proxies: leave the former.
    """
    taken = set(NAME_VARIABLES)
    if not keeps_proxies:
        taken |= {form for name in PROXY_VARIABLES for form in (name, name.lower())}
    return {name: value for name, value in environ.items() if name not in taken}
