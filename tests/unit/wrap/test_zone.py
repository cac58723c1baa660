"""What the gate's name server says."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.addr import Name
from tabi.wrap import zone
from tabi.wrap.dns import Rcode
from tabi.wrap.names import Names
from tabi.wrap.zone import Answer

A, NS, SOA, PTR, MX, TXT, AAAA, SRV, SVCB, HTTPS, ANY = 1, 2, 6, 12, 15, 16, 28, 33, 64, 65, 255


def query(name: str | list[bytes], kind: int) -> bytes:
    labels = [label.encode() for label in name.split(".") if label] if isinstance(name, str) else name
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + wire + struct.pack("!HH", kind, 1)


def ask(name: str | list[bytes], kind: int = A, names: Names | None = None) -> Answer:
    said = zone.answer(query(name, kind), Names() if names is None else names)
    assert said is not None
    return said


def addresses(said: Answer) -> list[str]:
    assert said.rcode is Rcode.NOERROR
    return [str(ip_address(record.data)) for record in said.records]


def test_every_name_has_an_address_of_each_family() -> None:
    names = Names()
    assert addresses(ask("Secret.Example.test", A, names)) == ["198.18.1.1"]
    assert addresses(ask("secret.example.test", AAAA, names)) == ["fd00:5ec:0:1::1"]
    assert addresses(ask("wiki", A, names)) == ["198.18.1.2"]
    assert addresses(ask("wiki", ANY, names)) == ["198.18.1.2"]
    assert names.name_of(ip_address("198.18.1.1")) == Name("secret.example.test")


def test_address_holds_for_a_short_time() -> None:
    (record,) = ask("a.test").records
    assert 0 < record.ttl <= 60


@pytest.mark.parametrize("kind", [NS, SOA, PTR, MX, TXT, SRV, SVCB, HTTPS, 0, 65_535])
def test_names_have_nothing_else_and_get_no_address_by_it(kind: int) -> None:
    names = Names()
    said = ask("a.test", kind, names)
    assert (said.rcode, said.records, len(names)) == (Rcode.NOERROR, (), 0)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "a.localhost", "x.y.localhost"])
def test_localhost_is_the_programs_own(name: str) -> None:
    names = Names()
    assert addresses(ask(name, A, names)) == ["127.0.0.1"]
    assert addresses(ask(name, AAAA, names)) == ["::1"]
    assert len(names) == 0


def test_address_that_is_asked_for_as_a_name_is_itself() -> None:
    assert addresses(ask("203.0.113.7", A)) == ["203.0.113.7"]
    assert addresses(ask("203.0.113.7", AAAA)) == []
    assert addresses(ask([b"2001:db8::7"], AAAA)) == ["2001:db8::7"]


@pytest.mark.parametrize(
    "name",
    [
        "invalid", "a.invalid", "use-application-dns.net", "ipv4only.arpa", "resolver.arpa", "a.in-addr.arpa",
        "127.1", "example.1", "0x7f.0.0.1", "-a.test", [b"a b", b"test"], [b"a.b", b"test"], [b"\xff", b"test"],
        [b"a\0", b"test"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [A, AAAA, MX])
def test_what_no_proxy_can_be_asked_for_does_not_exist(name: str | list[bytes], kind: int) -> None:
    names = Names()
    assert ask(name, kind, names).rcode is Rcode.NXDOMAIN
    assert len(names) == 0


@pytest.mark.parametrize(
    "name", ["localhost.test", "notinvalid", "nas.home.arpa", "printer.local", "x.onion", "_a._b.test"]
)
def test_what_looks_alike_goes_to_the_proxy(name: str) -> None:
    assert addresses(ask(name)) == ["198.18.1.1"]


def test_root_has_nothing() -> None:
    said = ask("", A)
    assert (said.rcode, said.records) == (Rcode.NOERROR, ())


def test_addresses_that_were_given_have_their_names() -> None:
    names = Names()
    ask("one.test", A, names)
    for reverse in ("1.1.18.198.in-addr.arpa", "1." + "0." * 15 + "1.0.0.0.0.0.0.0.c.e.5.0.0.0.d.f.ip6.arpa"):
        (record,) = ask(reverse, PTR, names).records
        assert record.data == b"\x03one\x04test\x00"


def test_loopback_has_its_name() -> None:
    (record,) = ask("1.0.0.127.in-addr.arpa", PTR).records
    assert record.data == b"\x09localhost\x00"


@pytest.mark.parametrize("reverse", ["2.1.18.198.in-addr.arpa", "1.0.18.198.in-addr.arpa", "7.113.0.203.in-addr.arpa"])
def test_other_addresses_have_none(reverse: str) -> None:
    assert ask(reverse, PTR).rcode is Rcode.NXDOMAIN


def test_what_is_wrong_with_a_query_is_said() -> None:
    said = zone.answer(query("a.test", A)[:-1], Names())
    assert said is not None
    assert said.encode() == b"\x00\x07\x81\x81" + bytes(8)


def test_no_query_no_answer() -> None:
    assert zone.answer(b"\0" * 11, Names()) is None


def test_answer_on_the_wire() -> None:
    assert ask("a.test").encode() == (
        b"\x00\x07\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01"
        b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc6\x12\x01\x01"
    )


@given(
    st.one_of(
        st.binary(max_size=400),
        st.builds(query, st.lists(st.binary(min_size=1, max_size=63), max_size=4), st.integers(0, 65_535)),
        st.builds(query, st.lists(st.text("abc.-_0", min_size=1, max_size=9).map(str.encode), max_size=4), st.just(A)),
    )
)
def test_any_bytes_give_an_answer_that_fits_or_nothing(message: bytes) -> None:
    said = zone.answer(message, Names())
    if said is not None:
        assert len(said.encode()) <= 512  # RFC 1035 section 4.2.1
