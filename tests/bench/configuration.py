"""The file that tabi is measured with: rules that are asked one after the other, a user, one line for each session."""

import subprocess
import sys

__all__ = ["LOGIN", "tabi_configuration"]

LOGIN = ("alice", "open-sesame")
"""User and password of the generator's clients."""

_FEW_RULES = """
[[rule]]
name = "no mail"
refuse = "not-allowed"
port = [25, 465, 587]

[[rule]]
name = "not to be reached"
refuse = "host-unreachable"
to = ["*.internal.example", "192.0.2.0/24", "2001:db8::/32"]

[[rule]]
name = "the printers' network"
allow = true
from = "198.51.100.0/24"
to = "203.0.113.0/24"
port = [443, 631]
"""

_EVERYTHING_HERE = """
[[rule]]
name = "programs on this host"
allow = true
from = ["127.0.0.0/8", "::1"]
to = ["127.0.0.0/8", "::1", "localhost"]
"""


def tabi_configuration(address: str, *, login: bool = False, rules: int = 0) -> str:
    """Write the file; its last table is the rule that lets through.

    Args:
        address: where to listen.
        login: ask clients for `LOGIN`.
        rules: so many more rules, each of which names a host and a port, before the one that lets through.
    """
    parts = [f'listen = ["{address}"]\n', '[log]\nformat = "text"\n[cap]\nper_client = 65536\n']
    if login:
        parts.append(f'[[user]]\nname = "{LOGIN[0]}"\n{_hash(LOGIN[1])}\n')
    parts.append(_FEW_RULES)
    parts += [f'[[rule]]\nallow = true\nto = "host{n}.example"\nport = {n % 60_000 + 1}\n' for n in range(rules)]
    parts.append(_EVERYTHING_HERE)
    return "".join(parts)


def _hash(password: str) -> str:
    """Hash a password as an administrator does: `tabi passwd`, at its full cost."""
    call = [sys.executable, "-m", "tabi", "passwd"]
    return subprocess.run(call, input=password + "\n", capture_output=True, text=True, check=True).stdout.strip()
