"""Hosts and endpoints: what is taken, what it becomes, what is refused."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tabi.addr import Endpoint, Name, escape, parse_host, parse_port, printable, token, unmap
from tabi.errors import AddressError, Reply

V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        ("192.0.2.1", V4),
        (b"192.0.2.1", V4),
        ("192.0.2.1.", V4),
        ("2001:db8::1", V6),
        ("[2001:DB8::1]", V6),
        ("::ffff:192.0.2.1", V4),
        ("[::ffff:c000:201]", V4),
        ("１９２.0。2．1", V4),  # full-width digits, ideographic and full-width dots: NFKC, as IDNA 2003 has it
        ("Example.COM", Name("example.com")),
        ("example.com.", Name("example.com")),
        ("_dmarc.example", Name("_dmarc.example")),
        ("4chan.example", Name("4chan.example")),
        ("0x7f.example", Name("0x7f.example")),
        ("a.b-c.d1", Name("a.b-c.d1")),
        ("bücher.example", Name("xn--bcher-kva.example")),
        ("BÜCHER.example。", Name("xn--bcher-kva.example")),
        ("xn--bcher-kva.example", Name("xn--bcher-kva.example")),
        ("bücher.example".encode(), Name("xn--bcher-kva.example")),
    ],
)
def test_host_has_one_normal_form(raw: str | bytes, host: object) -> None:
    assert parse_host(raw) == host


# What inet_aton(3) and getaddrinfo(3) would read as an address, and what comes close.
NUMERIC = [
    "172425730", "0x0a470202", "0X0A470202", "0x7f.1", "0177.0.0.1", "127.1", "127.0.1", "10.71.2.02", "0", "0x",
    "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "example.0x7f", "example.1", "1.2.3.4..", "127.1.", "１２７.1",
]  # fmt: skip


@pytest.mark.parametrize("raw", NUMERIC)
def test_numeric_form_other_than_a_dotted_quad_is_refused(raw: str) -> None:
    with pytest.raises(AddressError):
        parse_host(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"10.71.2.2\0bad",  # the name that four of eight servers connect to 10.71.2.2 for
        b"example.com\0",
        b"\0",
        b"a\nb",
        b"a\rb",
        b"a\tb",
        b"a b",
        b" example.com",
        b"a\x7fb",
        b"a\x1b[31mb",
        "a\u0085b".encode(),
        "a\u202eb".encode(),
    ],
)
def test_control_byte_space_or_nul_in_a_name_is_refused(raw: bytes) -> None:
    with pytest.raises(AddressError) as refusal:
        parse_host(raw)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("", "empty"),
        (".", "empty"),
        ("a..b", "empty label"),
        (".a", "empty label"),
        ("a" * 64, "64 characters"),
        ("a" * 63 + "." + "b" * 64 + ".c", "64 characters"),
        (".".join(["a" * 63] * 4), "255 characters"),
        ("---", "hyphen"),
        ("-oProxyCommand=x", "hyphen"),
        ("a@b", "only letters"),
        ("a/b", "only letters"),
        ("a%00b", "only letters"),
        ("*.example", "only letters"),
        (b"\xff\xfe.example", "not UTF-8"),
        ("straße.example", "differently"),
        ("\u00ad.example", "no domain name"),  # a soft hyphen, which IDNA maps to nothing
        ("ü" * 70, "no domain name"),
        ("fe80::1%eth0", "zone"),
        ("[::1", "no IPv6 address"),
        ("::1]", "no IPv6 address"),
        ("[192.0.2.1]", "no IPv6 address"),
        ("[example.com]", "no IPv6 address"),
        ("1:2", "no IPv6 address"),
        ("::g", "no IPv6 address"),
        ("::ffff:127.1", "no IPv6 address"),
        ("example.com:80", "no IPv6 address"),
    ],
)
def test_refusal_says_what_is_wrong(raw: str | bytes, why: str) -> None:
    with pytest.raises(AddressError, match=why) as refusal:
        parse_host(raw)
    assert refusal.value.reply is Reply.HOST_UNREACHABLE


def test_longest_label_and_longest_name_are_taken() -> None:
    assert parse_host("a" * 63) == Name("a" * 63)
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert len(longest) == 253  # RFC 1035 section 2.3.4
    assert parse_host(longest + ".") == Name(longest)


@pytest.mark.parametrize("text", ["Example.com", "example.com.", "127.0.0.1", "127.1", "a b", "", "ü", "a\0", "a\n"])
def test_name_cannot_be_made_from_text_that_is_not_in_normal_form(text: str) -> None:
    with pytest.raises(AddressError):
        Name(text)


def test_unmap_changes_ipv4_mapped_addresses_only() -> None:
    assert unmap(IPv6Address("::ffff:192.0.2.1")) == V4
    assert unmap(V4) is V4
    assert unmap(V6) is V6
    assert unmap(IPv6Address("::192.0.2.1")) == IPv6Address("::c000:201")


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("192.0.2.1:80", Endpoint(V4, 80)),
        ("[2001:db8::1]:0", Endpoint(V6, 0)),
        ("example.com:65535", Endpoint(Name("example.com"), 65535)),
    ],
)
def test_endpoint_text_reads_and_prints_the_same(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("192.0.2.1", Endpoint(V4, 1080)),
        ("2001:db8::1", Endpoint(V6, 1080)),
        ("[2001:db8::1]", Endpoint(V6, 1080)),
        ("example.com", Endpoint(Name("example.com"), 1080)),
        ("example.com:80", Endpoint(Name("example.com"), 80)),
    ],
)
def test_port_may_be_left_out_where_there_is_a_default(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text, default_port=1080) == endpoint


@pytest.mark.parametrize(
    "text", ["example.com", "2001:db8::1", "[::1]", "example.com:", "example.com:http", ":80", "a:65536", "a:-1", ""]
)
def test_endpoint_without_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        Endpoint.parse(text)


@pytest.mark.parametrize(("text", "port"), [("0", 0), ("80", 80), ("00080", 80), ("65535", 65535)])
def test_port_is_a_decimal_number(text: str, port: int) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["", "-1", "+1", "1 ", "65536", "000080", "0x50", "８０", "²", "1_0"])
def test_other_port_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match="no port"):
        parse_port(text)


@pytest.mark.parametrize(
    ("sockaddr", "endpoint"),
    [
        (("192.0.2.1", 5), Endpoint(V4, 5)),
        (("2001:db8::1", 5, 0, 0), Endpoint(V6, 5)),
        (("::ffff:192.0.2.1", 5, 0, 0), Endpoint(V4, 5)),
        (("fe80::1%eth0", 5, 0, 2), Endpoint(IPv6Address("fe80::1"), 5)),
    ],
)
def test_socket_addresses_become_endpoints(sockaddr: tuple[str, int], endpoint: Endpoint) -> None:
    assert Endpoint.from_sockaddr(sockaddr) == endpoint


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("plain", '"plain"'),
        (b"a\r\nb", r'"a\x0d\x0ab"'),
        ('say "hi" \\', r'"say \"hi\" \\"'),
        ("bücher 旅", '"bücher 旅"'),
        (b"\xff\0", r'"\xff\x00"'),
        ("\u202e\U000e0001", r'"\u202e\U000e0001"'),
        ("x" * 301, f'"{"x" * 300}…" (301 characters)'),
        ("é" * 301, f'"{"é" * 300}…" (301 characters)'),
    ],
)
def test_escaped_text_stays_on_one_line(raw: str | bytes, text: str) -> None:
    assert escape(raw) == text


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("web.example:80", "web.example:80"),
        ("[::1]:80", "[::1]:80"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ("用户", '"用户"'),
        ("\u009b2J", '"\\x9b2J"'),
    ],
)
def test_token_is_one_word(text: str, word: str) -> None:
    assert token(text) == word


def test_printable_text_has_nothing_for_a_terminal_and_keeps_its_quotes() -> None:
    assert printable('rule "staff" is \\ 用户') == 'rule "staff" is \\ 用户'
    assert printable("\x1b[2J\u202e\n\u009b\udcff") == "\\x1b[2J\\u202e\\x0a\\x9b\\xff"
