"""Servers by configurations with upstreams, and rules for them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from helpers.name_service import NameService
from helpers.serving import Running, serving
from helpers.socks import ask5
from tabi.config.load import load_text

__all__ = ["ANYTHING", "HERE", "NAMES", "Routing", "Where", "routing", "upstream", "url"]

Where = tuple[str, int]

HERE = '[[rule]]\nname = "{name}"\nallow = true\nto = "127.0.0.0/8"\n'
ANYTHING = '[[rule]]\nname = "all"\nallow = true\n'
NAMES = {"v4.example": ["127.0.0.1"], "inside.example": ["127.0.0.2"], "both.example": ["127.0.0.2", "127.0.0.1"]}


def url(where: Where, scheme: str = "socks5h", login: str = "") -> str:
    """Write the URL of a proxy."""
    return f"{scheme}://{login}{where[0]}:{where[1]}"


def upstream(name: str, *urls: str, more: str = "") -> str:
    """Write an [[upstream]] that rests for an hour."""
    return f'[[upstream]]\nname = "{name}"\nurl = {list(urls)}\ncool_down = "1 h"\n{more}'


class Routing:
    """A server by a configuration, and its own name service."""

    def __init__(self, server: Running, names: NameService) -> None:
        self.server, self.names = server, names

    @property
    def address(self) -> Where:
        """Where it listens."""
        return self.server.address

    def reply_to(self, host: str | bytes, port: int) -> int:
        """Ask for CONNECT; gives REP."""
        sock, reply, _, _ = ask5(self.address, 1, host, port)
        sock.close()
        return reply


@contextmanager
def routing(*text: str, names: Mapping[str, Sequence[str]] = NAMES) -> Iterator[Routing]:
    """Run a server by a configuration, with a name service that knows `names`."""
    loaded = load_text("".join(text), "tabi.toml")
    settings = {"tor_resolve": True, "race": loaded.settings.race}
    with serving(policy=loaded.rules, options={"upstreams": loaded.upstreams}, **settings) as server:
        yield Routing(server, NameService(names).serve(server))
