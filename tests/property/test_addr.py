"""Whatever is written for a host: one normal form, or a refusal."""

import socket
import string
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tabi.addr import Endpoint, Name, escape, parse_host
from tabi.errors import AddressError

LABELS = st.text(string.ascii_lowercase + string.digits + "-_", min_size=1, max_size=20)
NEAR_NUMBERS = st.lists(
    st.one_of(
        st.integers(0, 2**33).map(str), st.integers(0, 2**33).map(hex), st.integers(0, 300).map("{:o}".format),
        st.sampled_from(["", "0x", "0X7F", "00", "-1", "1e3", "ff", "１"]),
    ),
    min_size=1, max_size=5,
).map(".".join)  # fmt: skip
TEXT = st.one_of(
    st.text(max_size=300),
    st.text(string.ascii_letters + string.digits + ".-_:[]%x \0\r\n", max_size=80),
    st.lists(LABELS, min_size=1, max_size=6).map(".".join),
    st.ip_addresses().map(str),
    NEAR_NUMBERS,
)
HOSTS = st.one_of(TEXT, TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=255))


def normal(raw: str | bytes) -> Name | IPv4Address | IPv6Address | None:
    """Return the normal form; None for a refusal, which must be fit for the log."""
    try:
        return parse_host(raw)
    except AddressError as error:
        refusal = str(error)
    assert refusal.isprintable()
    return None


@given(HOSTS)
@example("\u00ad")
@example("a\u3002")
@example("Σς")
def test_normalising_twice_changes_nothing(raw: str | bytes) -> None:
    host = normal(raw)
    if host is not None:
        assert parse_host(str(host)) == host
        assert parse_host(str(host).encode()) == host
        assert parse_host(str(host).upper() + ("" if isinstance(host, IPv6Address) else ".")) == host


@given(HOSTS)
@example("172425730")
@example("0x7f.1")
@example("127.0.0.1 x")
@example("0177.0.0.1")
def test_name_is_plain_and_no_c_library_takes_it_for_an_address(raw: str | bytes) -> None:
    host = normal(raw)
    if isinstance(host, Name):
        assert set(host.text) <= set(string.ascii_lowercase + string.digits + "-_.")
        assert 1 <= len(host.text) <= 253
        assert all(1 <= len(label) <= 63 for label in host.text.split("."))
        with pytest.raises(OSError, match="illegal IP address"):
            socket.inet_aton(host.text)


@given(NEAR_NUMBERS)
def test_what_a_c_library_reads_is_read_the_same_or_refused(text: str) -> None:
    try:
        address = IPv4Address(socket.inet_aton(text))
    except (OSError, UnicodeEncodeError):
        return
    assert normal(text) in (None, address)


@given(st.ip_addresses())
def test_address_text_is_that_address(address: IPv4Address | IPv6Address) -> None:
    mapped = getattr(address, "ipv4_mapped", None)
    assert parse_host(str(address)) == (mapped or address)


@given(TEXT, st.integers(0, 65535))
def test_endpoint_prints_as_it_is_read(raw: str, port: int) -> None:
    host = normal(raw)
    if host is not None:
        endpoint = Endpoint(host, port)
        assert Endpoint.parse(str(endpoint)) == endpoint


@given(st.one_of(st.text(), st.binary()))
def test_escaped_text_is_one_printable_line(raw: str | bytes) -> None:
    text = escape(raw)
    assert text.isprintable()
    assert text.encode()
    assert '"' not in text[1:].rpartition('"')[0].replace("\\\\", "").replace('\\"', "")


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_escaping_keeps_different_bytes_different(one: bytes, other: bytes) -> None:
    assert (escape(one) == escape(other)) == (one == other) or max(len(one), len(other)) > 290
