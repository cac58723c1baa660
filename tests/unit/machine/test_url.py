"""Proxy URLs: what they mean, and that no error shows a password."""

import pytest

from tabi.addr import Endpoint
from tabi.errors import UsageError
from tabi.machine.hop import Hop, Scheme
from tabi.machine.url import parse_proxies, parse_proxy

SECRET = "sesame"


def hop(scheme: Scheme, where: str, username: bytes = b"", password: bytes = b"") -> Hop:
    return Hop(scheme, Endpoint.parse(where), username, password)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("socks5h://127.0.0.1:1080", hop(Scheme.SOCKS5H, "127.0.0.1:1080")),
        ("socks5://proxy.example", hop(Scheme.SOCKS5, "proxy.example:1080")),
        ("socks4://bob@proxy.example:9", hop(Scheme.SOCKS4, "proxy.example:9", b"bob")),
        ("socks4a://proxy.example:9/", hop(Scheme.SOCKS4A, "proxy.example:9")),
        ("SOCKS5H://Proxy.Example:9", hop(Scheme.SOCKS5H, "proxy.example:9")),
        ("socks://proxy.example", hop(Scheme.SOCKS5H, "proxy.example:1080")),
        ("http://proxy.example", hop(Scheme.HTTP, "proxy.example:1080")),
        ("proxy.example:3128", hop(Scheme.HTTP, "proxy.example:3128")),
        ("[2001:db8::1]:3128", hop(Scheme.HTTP, "[2001:db8::1]:3128")),
        ("socks5h://[2001:db8::1]", hop(Scheme.SOCKS5H, "[2001:db8::1]:1080")),
        ("socks5h://alice:sesame@h.example", hop(Scheme.SOCKS5H, "h.example:1080", b"alice", b"sesame")),
        ("socks5h://a%3Ab:%40%2f%25@h.example", hop(Scheme.SOCKS5H, "h.example:1080", b"a:b", b"@/%")),
        ("socks5h://a:b:c@h.example", hop(Scheme.SOCKS5H, "h.example:1080", b"a", b"b:c")),
        ("socks5h://%ff:p%C3%A4@h.example", hop(Scheme.SOCKS5H, "h.example:1080", b"\xff", "pä".encode())),
        ("socks5h://ü:ä@h.example", hop(Scheme.SOCKS5H, "h.example:1080", "ü".encode(), "ä".encode())),
        ("http://alice:@h.example", hop(Scheme.HTTP, "h.example:1080", b"alice")),
    ],
)
def test_urls_mean_what_curl_takes_them_for(url: str, expected: Hop) -> None:
    assert parse_proxy(url) == expected


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("https://h.example", '"https" is none of socks4, socks4a, socks5, socks5h, http'),
        ("socks6://h.example", "none of"),
        ("socks5h://alice:sesame@h.example:99999", "port"),
        ("socks5h://alice:sesame@h.example:0", "port 0"),
        ("socks5h://alice:sesame", "port"),  # the host was forgotten
        ("alice:sesame", "port"),
        ("socks5h://alice:sesame@", "empty"),
        ("socks5h://alice:sesame@2001:db8::1", r"in \[\]"),
        ("socks5h://alice:sesame@h.example/path", "path"),
        ("socks5h://alice:sesame@h.example?x=1", "path"),
        ("socks5h://alice:se/same@h.example", "/ is %2F"),
        ("socks5h://alice:se@same@h.example", "@ is %40"),
        ("socks5h://alice:se#same@h.example", "# is %23"),
        ("socks5h://alice:sesame%@h.example", "%25"),
        ("socks5h://alice:sesame%2@h.example", "%25"),
        ("socks5h://alice:ses ame@h.example", "space"),
        ("socks5h://alice:sesame\n@h.example", "control"),
        ("socks5h://alice:sesame@-h.example", "hyphen"),
        ("socks5h://alice:sesame@127.1", "no domain name"),
        ("socks5h://alice:sesame@[fe80::1%25eth0]", "zone"),
    ],
)
def test_what_is_no_proxy_is_refused_without_showing_a_password(url: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        parse_proxy(url)
    assert SECRET not in str(caught.value)
    assert "same" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("socks5h://alice@h.example", "password of 0 bytes"),
        ("socks5h://:sesame@h.example", "user name of 0 bytes"),
        ("socks5h://alice:" + SECRET * 50 + "@h.example", "300 bytes"),
        ("socks4://alice:sesame@h.example", "no password"),
        ("socks5h://alice:sesame%0d%0a@h.example", "CR"),
        ("http://alice:sesame%00@h.example", "NUL"),
        ("http://al%3Aice:sesame@h.example", "colon"),
    ],
)
def test_credentials_that_do_not_fit_are_refused_at_once(url: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        parse_proxy(url)
    assert SECRET not in str(caught.value)


def test_a_proxy_may_be_a_url_or_parsed_or_several_or_none() -> None:
    first, second = "socks5h://a.example", "http://b.example"
    hops = (parse_proxy(first), parse_proxy(second))
    assert parse_proxies(None) == ()
    assert parse_proxies(first) == hops[:1]
    assert parse_proxies(hops[0]) == hops[:1]
    assert parse_proxies([first, hops[1]]) == hops
