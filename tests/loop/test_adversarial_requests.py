"""Hostile requests against the running server, of SOCKS5, 4 and 4a: exact replies, and nothing carried out by half.

Comments such as A24 are rows of the project's catalogue of adversarial inputs.
"""


import pytest

from helpers.clocks import endless
from helpers.hostile import FAILED5, NO_AUTH, REJECTED4, NeverReached, converse, failure5, handshakes
from helpers.name_service import NameService
from helpers.serving import Running, allow_all, serving
from helpers.socks import (
    address5,
    ask5,
    dial,
    greet5,
    read_reply5,
    request4,
    request5,
    reset,
)
from helpers.targets import banner, target
from helpers.waiting import until
from tabi.config.settings import TimeLimits
from tabi.server.limiter import RefusalLimiter

pytestmark = pytest.mark.usefixtures("nothing_left")


# A23 to A27: requests


def test_port_0_cannot_be_connected_to(running: Running) -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert converse(running, NO_AUTH + request5(1, host, 0)) == b"\x05\x00" + failure5(1)
    running.idle()
    assert {line["why"] for line in running.lines} == {"protocol"}


def test_port_0_is_fine_for_bind_and_associate(running: Running) -> None:
    for command in (2, 3):
        sock, reply, _, _ = ask5(running.address, command, "127.0.0.1", 0)
        sock.close()
        assert reply == 0


@pytest.mark.parametrize("command", [0, 4, 9, 0x7F, 0xF0, 0xF1, 0xFF])
def test_an_unknown_command_is_answered_by_7(running: Running, command: int) -> None:
    assert converse(running, NO_AUTH + request5(command, "127.0.0.1", 80)) == b"\x05\x00" + failure5(7)
    line = running.only_line()
    assert (line["why"], line["reply"]) == ("protocol", 7)


@pytest.mark.parametrize("command", [0, 3, 4, 9, 0xF0, 0xFF])
def test_an_unknown_socks4_command_is_rejected(running: Running, command: int) -> None:
    assert converse(running, request4(command, "127.0.0.1", 80)) == REJECTED4
    assert running.only_line()["why"] == "protocol"


@pytest.mark.parametrize("atyp", [0, 2, 5, 0x23, 0xFF])
def test_an_unknown_address_type_is_answered_by_8_without_waiting_for_the_address(running: Running, atyp: int) -> None:
    assert converse(running, NO_AUTH + bytes((5, 1, 0, atyp))) == b"\x05\x00" + failure5(8)
    line = running.only_line()
    assert (line["why"], line["reply"]) == ("protocol", 8)


@pytest.mark.parametrize("version", [0, 1, 4, 6, 0x47])
def test_a_request_of_another_version_gets_no_answer(running: Running, version: int) -> None:
    with NeverReached() as trap:
        request = request5(1, "127.0.0.1", trap.port)
        assert converse(running, NO_AUTH + bytes((version,)) + request[1:]) == b"\x05\x00"
        assert running.only_line()["why"] == "protocol"


@pytest.mark.parametrize("rsv", [1, 0xFF])
def test_an_rsv_that_is_not_zero_is_tolerated(running: Running, rsv: int) -> None:
    with target() as there, greet5(running.address) as sock:
        request = request5(1, *there)
        sock.sendall(request[:2] + bytes((rsv,)) + request[3:])
        assert read_reply5(sock)[0] == 0


@pytest.mark.parametrize("kind", ["socks5", "socks5 name", "socks4", "socks4a"])
def test_a_client_that_closes_its_direction_after_the_request_is_served(running: Running, kind: str) -> None:
    with target(banner(b"served" * 1000)) as there:
        says, answer_size = handshakes(there[1])[kind]
        assert converse(running, says, fin=True)[answer_size:] == b"served" * 1000


# A28: cut short


@pytest.mark.parametrize("kind", ["socks5", "socks5 name", "socks4", "socks4a"])
def test_a_handshake_that_ends_anywhere_is_closed_and_told(running: Running, kind: str) -> None:
    says, _ = handshakes(9)[kind]
    running.server.journal._limiter = RefusalLimiter(endless())
    for end in range(len(says)):
        assert converse(running, says[:end], fin=True) == (b"\x05\x00" if says[:end][:3] == NO_AUTH else b"")
        until(lambda end=end: len(running.raw) == end + 1, "its line")
        line = running.lines[-1]
        assert (line["by"], line["why"]) == ("client", "fin"), end
        assert "reply" not in line
    running.idle()


def test_a_handshake_that_is_reset_anywhere_leaves_nothing(running: Running) -> None:
    says = NO_AUTH + request5(1, "127.0.0.1", 9)
    for end in range(len(says)):
        sock = dial(running.address)
        sock.sendall(says[:end])
        reset(sock)
    until(lambda: len(running.raw) == len(says), "a line of each")
    running.idle()
    assert {line["by"] for line in running.lines} == {"client"}
    assert {line["why"] for line in running.lines} <= {"rst", "fin"}


# A29 to A32: SOCKS4


def test_a_userid_without_its_end_never_becomes_a_request() -> None:
    with NeverReached() as trap, serving(time=TimeLimits(handshake=0.2)) as server:
        assert converse(server, request4(1, "127.0.0.1", trap.port, b"me")[:-1]) == b""
        line = server.only_line()
        assert line["why"] == "limit:handshake"
        assert "userid" not in line


def test_a_socks4a_name_without_its_end_never_becomes_a_request() -> None:
    with NeverReached() as trap, serving(time=TimeLimits(handshake=0.2)) as server:
        assert converse(server, request4(1, "0.0.0.1", trap.port, b"me", b"127.0.0.1")[:-1]) == b""
        assert server.only_line()["why"] == "limit:handshake"


@pytest.mark.parametrize("size", [256, 2000, 100_000])
@pytest.mark.parametrize("ended", [b"", b"\0"])
def test_a_userid_over_255_bytes_is_rejected_at_once(running: Running, size: int, ended: bytes) -> None:
    with NeverReached() as trap:
        says = request4(1, "127.0.0.1", trap.port)[:-1] + b"u" * size + ended
        assert converse(running, says) == REJECTED4
        assert running.only_line()["why"] == "protocol"


@pytest.mark.parametrize("size", [256, 2000, 100_000])
@pytest.mark.parametrize("ended", [b"", b"\0"])
def test_a_socks4a_name_over_255_bytes_is_rejected_at_once(running: Running, size: int, ended: bytes) -> None:
    names = NameService().serve(running)
    assert converse(running, request4(1, "0.0.0.1", 80) + b"a" * size + ended) == REJECTED4
    assert running.only_line()["why"] == "protocol"
    assert names.asked == []


def test_a_userid_of_255_bytes_is_fine(running: Running) -> None:
    with target() as there:
        assert converse(running, request4(1, *there, userid=b"u" * 255), fin=True)[:2] == b"\x00\x5a"
    assert running.only_line()["userid"] == "u" * 255


@pytest.mark.parametrize(
    "says",
    [
        request4(1, "0.0.0.0", 80),
        request4(1, "127.0.0.1", 0),
        request4(1, "0.0.0.1", 0, domain=b"localhost"),
        request4(1, "0.0.0.1", 80, domain=b""),
        request4(1, "0.0.0.255", 80, domain=b"---"),
    ],
)
def test_a_socks4_request_that_leads_nowhere_is_rejected(running: Running, says: bytes) -> None:
    assert converse(running, says) == REJECTED4
    assert running.only_line()["why"] == "protocol"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", b"0.0.0.0", b"::", "::ffff:0.0.0.0"])
def test_the_unspecified_address_is_no_target(host: str | bytes) -> None:
    with NeverReached() as trap, serving(policy=allow_all) as server:
        assert converse(server, NO_AUTH + request5(1, host, trap.port)) == b"\x05\x00" + failure5(1)
        assert server.only_line()["why"] == "protocol"


@pytest.mark.parametrize("host", ["0.0.0.1", "0.1.2.3", b"0.0.0.1"])
def test_the_socks4a_marker_leads_nowhere_in_socks5(host: str | bytes) -> None:
    with NeverReached() as trap, serving(policy=allow_all) as server:
        answer = converse(server, NO_AUTH + request5(1, host, trap.port))
        assert answer[2] == 5
        assert answer[3] != 0
        server.only_line()


def test_what_a_name_leads_to_may_not_be_the_unspecified_address(running: Running) -> None:
    with NeverReached() as trap:
        NameService({"zero.example": ["0.0.0.0", "::"]}).serve(running)
        answer = converse(running, NO_AUTH + request5(1, b"zero.example", trap.port))
        assert answer == b"\x05\x00" + failure5(4)  # a name that leads nowhere


def test_refusals_name_no_address_of_ours(running: Running) -> None:
    assert converse(running, NO_AUTH + b"\x05\x01\x00" + address5("127.0.0.1") + b"\x00\x00")[4:] == FAILED5
