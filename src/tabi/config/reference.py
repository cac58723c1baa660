"""What the table of keys says, for people: the reference page, and a fresh file with every key explained."""

import textwrap
from collections.abc import Iterator

from tabi.config.keys import TABLES, Key, Table
from tabi.policy.networks import PRIVATE_NETWORKS

__all__ = ["fresh_file", "reference"]

_WIDTH = 100

_INTRO = """\
# The configuration file

One TOML file, read by `tabi serve --config FILE`. `tabi check FILE` tells all errors at once, `tabi explain` which rule
would decide a request, and `tabi config` prints a fresh file. What ended a session, and what to do then, is told by
[the log](log.md). This page is made from the same table of keys that the server checks the file by
(`tabi config --reference`).

- A **duration** is a number of seconds, or text such as `"30s"`, `"5 min"`, `"1h 30min"`, `"2 days"`.
- A **bandwidth** is a number of bytes per second, or text such as `"10 MB/s"`, `"512 KiB/s"`, `"100 Mbit/s"`.
- Where **several** values may be given, one or an array of them is written. Entries that begin with `!` are left out.
"""

_PRIVATE = """\
## `@private`

What is not globally reachable by IANA's special-purpose registries, and what is of this host or its networks by nature:
"""

_PRIVATE_END = """\

Also the server's own addresses, and every IPv6 address that carries one of these IPv4 addresses inside:
`::ffff:0:0/96`, `64:ff9b::/96`, `2002::/16`, `2001::/32`. Documentation networks are not in it.

A running server follows the addresses of its host: one that comes is in `@private` at once, one that goes is in it no
more, and the log tells of both. Sessions that the rules refuse for that are ended, as with a reload.
"""


def reference() -> str:
    """Make the reference page, as Markdown."""
    parts = [_INTRO, *("\n".join(_table(table)) + "\n" for table in TABLES.values())]
    networks = "\n".join(f"- `{network}` {what}" for network, what in PRIVATE_NETWORKS)
    parts.append(f"{_PRIVATE}\n{networks}\n{_PRIVATE_END}")
    return "\n".join(parts)


def _table(table: Table) -> Iterator[str]:
    yield f"## {_title(table)}"
    yield ""
    yield table.help
    yield ""
    for key in table.keys:
        several = ", or several" if key.many else ""
        negatable = ", `!` leaves out" if key.negatable else ""
        unit = f" (a plain number: {key.kind.unit})" if key.kind.unit else ""
        yield f"### `{key.name}`" if not table.name else f"### `{key.name}` of {_title(table)}"
        yield ""
        yield key.help
        yield ""
        yield f"- accepted: {key.kind.accepted}{unit}{several}{negatable}"
        yield "- has to be there" if key.required else f"- default: {_code(key)}"
        yield f"- example: `{key.name} = {key.example or key.default}`"
        yield ""


def _title(table: Table) -> str:
    if not table.name:
        return "Before any table"
    return f"`{table.name}`" if table.short else f"`[[{table.name}]]`" if table.array else f"`[{table.name}]`"


def _code(key: Key) -> str:
    return f"`{key.default}`" if _is_toml(key) else key.default or "none"


def _is_toml(key: Key) -> bool:
    return key.default.startswith(('"', "[", *"0123456789")) or key.default in ("true", "false")


_FRESH = """\
# Configuration of tabi. `tabi check FILE` checks it, `tabi serve --config FILE` serves by it.
# A line that begins with "#" and a key shows what holds without it, or an example: take the "#" away to change it.
"""

_FRESH_RULES = """\

# Rules: the first one that matches decides; where none does, the request is refused.

[[rule]]
name = "programs on this host"
allow = true
from = ["127.0.0.0/8", "::1"]

# For clients of other hosts: listen on their network, add users, and rules such as these.
#
#   [[rule]]
#   name = "not into our own networks"
#   refuse = "not-allowed"
#   to = ["@private"]
#
#   [[rule]]
#   name = "staff to the web"
#   allow = true
#   user = ["@staff"]
#   port = ["80", "443"]
"""


def fresh_file() -> str:
    """Make a configuration that serves programs on this host, with every other key in comments."""
    listen = "\n".join(_comment(TABLES["listen"].help))
    parts = [_FRESH, f'{listen}\nlisten = ["127.0.0.1:1080", "[::1]:1080"]\n']
    tables = (table for name, table in TABLES.items() if name not in ("listen", "rule"))
    parts += ("\n".join(_fresh_table(table)) + "\n" for table in (*tables, TABLES["rule"]))
    return "\n".join(parts) + _FRESH_RULES


def _fresh_table(table: Table) -> Iterator[str]:
    if table.name:
        yield from _comment(table.help)
        yield f"#[[{table.name}]]" if table.array else f"[{table.name}]"
    for key in table.keys:
        yield ""
        unit = f" A plain number is {key.kind.unit}." if key.kind.unit else ""
        default = "" if _is_toml(key) or not key.default else f" Default: {key.default}."
        yield from _comment(f"{key.help} Accepted: {key.kind.accepted}.{unit}{default}")
        yield f"#{key.name} = {key.default if _is_toml(key) else key.example}"


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text.replace("`", ""), _WIDTH, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"
