"""Hostile names against the running server: one normal form, or no look-up at all.

Comments such as A19 are rows of the project's catalogue of adversarial inputs.
"""


import pytest

from helpers.hostile import NO_AUTH, REJECTED4, NeverReached, converse, failure5
from helpers.name_service import NameService
from helpers.serving import Running, serving
from helpers.socks import (
    connect5,
    request4,
    request5,
)
from helpers.targets import target
from tabi.policy.verdict import Context, Request, Verdict

pytestmark = pytest.mark.usefixtures("nothing_left")


# A17 to A22: names


def labels(total: int, size: int = 63) -> bytes:
    """Make a name of `total` bytes from labels of at most `size`."""
    name = b".".join([b"a" * size] * (total // (size + 1) + 1))[:total]
    return name[:-1] + b"a"


BAD_NAMES = {
    "empty": b"",
    "a dot": b".",
    "254 bytes": labels(254),
    "255 bytes": labels(255),
    "a label of 64": b"a" * 64 + b".example",
    "an empty label": b"a..example",
    "a hyphen first": b"-oProxyCommand=x",
    "hyphens": b"---",
    "NUL behind an address": b"127.0.0.1\0bad",
    "NUL behind a name": b"localhost\0",
    "only NUL": b"\0",
    "no UTF-8": b"\xff\xfe",
    "a zone": b"fe80::1%lo",
    "half a bracket": b"[::1",
    "a slash": b"a/b",
    "user info": b"user@localhost",
    "a port": b"localhost:80",
    **{f"byte {byte:#04x}": b"local" + bytes((byte,)) + b"host" for byte in (*range(1, 0x21), 0x7F)},
}
NUMERIC = [
    b"2130706433", b"0x7f.1", b"0177.0.0.1", b"127.1", b"127.0.1", b"0x7f000001", b"017700000001", b"0x7f.0.0.1",
    b"127.0.0.01", b"127.0.0.1.1", b"256.0.0.1", b"0", b"1.", b"127.0.0.0x1", b"0x", b"host.1", b"127.0.0.1 ",
    b"+127.0.0.1", "１２７.１".encode(),
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_name_that_is_none_is_refused_before_any_look_up(running: Running, name: bytes) -> None:
    with NeverReached() as trap:
        names = NameService().serve(running)
        assert converse(running, NO_AUTH + request5(1, name, trap.port)) == b"\x05\x00" + failure5(4)
        line = running.only_line()
        assert (line["why"], line["reply"]) == ("protocol", 4)
        assert "verdict" not in line  # policy never saw it
        assert names.asked == []


@pytest.mark.parametrize("name", NUMERIC)
def test_forms_that_only_a_c_library_takes_for_an_address_are_refused(running: Running, name: bytes) -> None:
    with NeverReached() as trap:
        names = NameService().serve(running)
        assert converse(running, NO_AUTH + request5(1, name, trap.port)) == b"\x05\x00" + failure5(4)
        assert converse(running, request4(1, "0.0.0.1", trap.port, b"", name)) == REJECTED4
        assert names.asked == []


@pytest.mark.parametrize(
    "name",
    [name for name in BAD_NAMES.values() if b"\0" not in name],
    ids=[key for key, name in BAD_NAMES.items() if b"\0" not in name],
)
def test_socks4a_refuses_such_names_as_well(running: Running, name: bytes) -> None:
    names = NameService().serve(running)
    assert converse(running, request4(1, "0.0.0.1", 80, b"", name)) == REJECTED4
    assert running.only_line()["reply"] in (1, 4)
    assert names.asked == []


def test_a_name_of_253_bytes_and_labels_of_63_is_looked_up(running: Running) -> None:
    names = NameService().serve(running)
    assert converse(running, NO_AUTH + request5(1, labels(253), 80)) == b"\x05\x00" + failure5(4)
    assert set(names.asked) == {labels(253).decode()}
    assert running.only_line()["why"] == "failed"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"127.0.0.1", "127.0.0.1"),
        (b"127.0.0.1.", "127.0.0.1"),
        (b"::ffff:127.0.0.1", "127.0.0.1"),
        (b"[::ffff:7f00:1]", "127.0.0.1"),
        (b"::1", "::1"),
        (b"[::1]", "::1"),
        (b"0:0:0:0:0:0:0:1", "::1"),
    ],
)
def test_an_address_as_text_is_judged_and_dialled_as_an_address(text: bytes, address: str) -> None:
    judged: list[Request] = []

    def judge(request: Request, _context: Context) -> Verdict:
        judged.append(request)
        return Verdict(allow=True, rule="noting")

    with target(host=address) as there, serving(policy=judge) as server:
        names = NameService().serve(server)
        with connect5(server.address, text, there[1]) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        shown = f"[{address}]" if ":" in address else address
        assert server.only_line()["target"] == f"{shown}:{there[1]}"
        assert names.asked == []
    assert {str(request.ip) for request in judged} == {address}


def test_an_ipv4_mapped_address_is_judged_and_dialled_as_ipv4(running: Running) -> None:
    with target() as there, connect5(running.address, "::ffff:127.0.0.1", there[1]) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    assert running.only_line()["target"] == f"127.0.0.1:{there[1]}"


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (b"Web.Example", "web.example"),
        (b"WEB.EXAMPLE.", "web.example"),
        ("bücher.example".encode(), "xn--bcher-kva.example"),
        ("BÜCHER.EXAMPLE".encode(), "xn--bcher-kva.example"),
        (b"_under.score", "_under.score"),
    ],
)
def test_policy_and_resolver_see_one_normal_form_of_a_name(sent: bytes, seen: str) -> None:
    judged: list[str] = []

    def judge(request: Request, _context: Context) -> Verdict:
        judged.append(str(request.target.host))
        return Verdict(allow=True, rule="noting")

    with target() as there, serving(policy=judge) as server:
        names = NameService({seen: ["127.0.0.1"]}).serve(server)
        connect5(server.address, sent, there[1]).close()
        assert server.only_line()["target"] == f"{seen}:{there[1]}"
    assert set(judged) == {seen}
    assert set(names.asked) == {seen}
