"""What a client is offered when it connects."""

from ipaddress import ip_address

import pytest

from tabi.addr import Endpoint
from tabi.config.access import Terms
from tabi.config.load import load_text
from tabi.wire.socks5 import Method

USER = '[[user]]\nname = "alice"\npassword = "x"\nplain = true\n'
NONE, PASSWORD = Method.NONE, Method.USERPASS
CLIENT = "10.1.2.3"


def terms(text: str, *, listener: str = "127.0.0.1:1080", client: str = CLIENT) -> Terms:
    return load_text(text, "x").terms(Endpoint.parse(listener), ip_address(client))


def offer(*methods: Method, socks4: bool) -> Terms:
    return Terms(frozenset(methods), socks4)


def test_without_users_nobody_is_asked() -> None:
    assert terms("") == offer(NONE, socks4=True)


def test_with_users_a_password_is_asked_for_and_socks4_is_closed() -> None:
    assert terms(USER) == offer(PASSWORD, socks4=False)


@pytest.mark.parametrize(("word", "methods"), [("none", {NONE}), ("password", {PASSWORD}), ("any", {NONE, PASSWORD})])
def test_auth_of_the_file_says_what_is_offered(word: str, methods: set[Method]) -> None:
    assert terms(f'auth = "{word}"\n{USER}') == offer(*methods, socks4=False)


def test_listener_has_its_own() -> None:
    text = f'listen = ["127.0.0.1:1080", {{address = "127.0.0.1:1081", auth = "none"}}]\n{USER}'
    assert terms(text) == offer(PASSWORD, socks4=False)
    assert terms(text, listener="127.0.0.1:1081") == offer(NONE, socks4=False)


def test_wildcard_listener_is_found_by_the_address_that_took_the_connection() -> None:
    text = f'listen = [{{address = "0.0.0.0:1080", auth = "any"}}, "127.0.0.1:1080"]\n{USER}'
    assert terms(text, listener="192.0.2.1:1080") == offer(NONE, PASSWORD, socks4=False)
    assert terms(text, listener="127.0.0.1:1080") == offer(PASSWORD, socks4=False)


def test_unknown_listener_is_as_the_file_says() -> None:
    """So are sockets that the service manager has opened."""
    assert terms(USER, listener="192.0.2.1:99") == offer(PASSWORD, socks4=False)


def test_client_table_replaces_what_the_listener_offers() -> None:
    text = USER + '[[client]]\nfrom = ["10.0.0.0/8", "!10.9.0.0/16"]\nauth = "none"\n'
    assert terms(text) == offer(NONE, socks4=False)
    assert terms(text, client="10.9.0.1") == offer(PASSWORD, socks4=False)
    assert terms(text, client="2001:db8::1") == offer(PASSWORD, socks4=False)


def test_first_client_table_counts() -> None:
    text = USER + '[[client]]\nfrom = "10.1.0.0/16"\n[[client]]\nfrom = "10.0.0.0/8"\nauth = "none"\nsocks4 = true\n'
    assert terms(text) == offer(PASSWORD, socks4=False)
    assert terms(text, client="10.2.0.1") == offer(NONE, socks4=True)


def test_client_table_opens_and_closes_socks4() -> None:
    assert terms(USER + '[[client]]\nfrom = "10.0.0.0/8"\nsocks4 = true\n') == offer(PASSWORD, socks4=True)
    assert terms('[[client]]\nfrom = "10.0.0.0/8"\nsocks4 = false\n') == offer(NONE, socks4=False)
