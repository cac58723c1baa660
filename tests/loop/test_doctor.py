"""`tabi doctor`: each examination finds its fault in a proxy that has it, and none in one that has not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from helpers.connect_proxy import connect_proxy
from helpers.examined import NAMES, SHORT, patient, put
from helpers.name_service import NameService
from helpers.serving import serving
from helpers.sick import LOGIN, sick
from helpers.targets import closed_port
from helpers.waiting import PATIENCE
from tabi.addr import Endpoint
from tabi.cli.main import main
from tabi.client.doctor.binding import is_here
from tabi.client.doctor.datagrams import bad_ones
from tabi.client.doctor.finding import Result, Verdict
from tabi.client.doctor.idle import watch
from tabi.client.doctor.patient import Expected, Need, Patient, Place
from tabi.client.doctor.report import in_json, in_text
from tabi.client.doctor.rounds import Rounds, examinations
from tabi.errors import ProtocolError, Reply, Stage
from tabi.server import Passwords
from tabi.testing import EvilPeer
from tabi.testing.evil import Vice, close_at, dribble, garbage, huge, reset_at, stall
from tabi.testing.parts import Line, http_proxy, socks5_server
from tabi.wire.address import Buffer
from tabi.wire.socks5 import Method
from tabi.wire.udp import Datagram

FINE = {Verdict.OK, Verdict.NOT_TRIED, Verdict.NOT_OFFERED}


def amiss(rounds: Rounds) -> dict[str, Result]:
    """Put all questions, and give what is not as it should be."""
    return {found.name: found.result for found in rounds if found.result.verdict not in FINE}


def test_tabis_own_server_has_no_fault() -> None:
    with serving(authenticator=Passwords(dict([LOGIN]))) as server:
        NameService(NAMES).serve(server)
        host, port = server.address
        rounds = Rounds(patient(f"socks5h://alice:sesame@{host}:{port}"))
        assert amiss(rounds) == {}
    assert rounds.faults == 0
    assert {Need.TUNNEL, Need.BIND, Need.DATAGRAMS, Need.PASSWORD, Need.BOTH} <= rounds.patient.has


@pytest.mark.parametrize("scheme", ["socks4", "socks4a"])
def test_tabis_own_server_has_no_fault_as_socks4(scheme: str) -> None:
    with serving() as server:
        NameService(NAMES).serve(server)
        host, port = server.address
        rounds = Rounds(patient(f"{scheme}://{host}:{port}"))
        assert amiss(rounds) == {}
    assert Need.TUNNEL in rounds.patient.has


@pytest.mark.parametrize("login", [False, True])
def test_a_proxy_that_is_right_has_no_fault(login: bool) -> None:
    with sick(login=login) as proxy:
        assert amiss(Rounds(patient(proxy.url))) == {}


WRONG = [
    ("any-method", "methods", "chooses 0x00 where only 0x01"),
    ("any-method", "no-common-method", "it chooses what was not offered"),
    ("any-method", "no-methods", "chooses 0x00 where none"),
    ("long-refusal", "no-common-method", "8 bytes more"),
    ("few-methods", "many-methods", "not the 0x00 at the end"),
    ("one-recv", "cut-greeting", "before the second of two methods"),
    ("one-recv", "split", "after 2 bytes"),
    ("bnd-echo", "bound-address", "which is the target itself"),
    ("bnd-listener", "bound-address", "which is where it listens"),
    ("closes-unknown", "unknown-command", "where 7 is right"),
    ("closes-unknown", "unknown-address-type", "where 8 is right"),
    ("any-command", "unknown-command", "takes it for CONNECT"),
    ("resolve-connects", "resolve", "takes it for CONNECT"),
    ("c-strings", "nul-in-name", "what stands before the NUL"),
    ("first-address", "name-to-ipv4", "answers 5"),
    ("first-address", "name-to-second", "answers 5"),
    ("damages", "bulk", "arrives changed"),
    ("no-half-close", "half-close-up", "the target's answer after it is lost"),
    ("no-half-close", "half-close-down", "what the client still sends is lost"),
    ("hides-reset", "reset-up", "the target sees an orderly end"),
    ("hides-reset", "reset-down", "the client sees an orderly end"),
    ("says-success", "refused", "answers success"),
    ("says-success", "unknown-name", "answers success"),
    ("says-1", "refused", "where 5 (connection refused) is right"),
    ("closes-refused", "refused", "without an answer"),
    ("bind-listener", "bind", "no port of its own for the peer"),
    ("bind-wrong-peer", "bind", "the second reply tells 127.0.0.1:9"),
    ("bind-anybody", "bind-stranger", "it takes the connection of 127.0.0.2"),
    ("udp-cuts", "udp-sizes", "1,492 come back"),
    ("udp-wrong-source", "associate", "header tells 127.0.0.1:9"),
    ("udp-fragments", "udp-fragments", "a fragment as if it were whole"),
    ("udp-anybody", "udp-stranger", "it is relayed"),
]
WRONG_BY_SILENCE = [
    ("one-recv", "coalesced"),
    ("drops-early", "early-data"),
    ("udp-no-names", "udp-name"),
    ("udp-dies", "udp-bad"),
    ("udp-first", "udp-stranger"),
]
ODD = [
    ("any-version", "wrong-version"),
    ("bnd-zero", "bound-address"),
    ("says-1", "unknown-name"),
    ("udp-zero", "associate"),
    ("udp-elsewhere", "associate"),
    ("udp-full-cone", "udp-unasked"),
]
NOT_OFFERED = [("no-bind", "bind"), ("no-udp", "associate")]
OF_LOGINS = [
    ("login-any", "login-wrong"),
    ("login-closes", "login-wrong"),
    ("login-remembered", "login-remembered"),
    ("login-skipped", "login-skipped"),
    ("login-c-string", "login-nul"),
]


@pytest.mark.parametrize(("fault", "name", "detail"), WRONG)
def test_a_fault_is_found(fault: str, name: str, detail: str) -> None:
    with sick(fault) as proxy:
        result = put(patient(proxy.url), name)
    assert result.verdict is Verdict.WRONG
    assert detail in result.detail


@pytest.mark.parametrize(("fault", "name"), WRONG_BY_SILENCE)
def test_a_fault_that_shows_by_silence_is_found(fault: str, name: str) -> None:
    with sick(fault) as proxy:
        assert put(patient(proxy.url, SHORT), name).verdict is Verdict.WRONG


@pytest.mark.parametrize("text", ["127.0.0.7:4321", "[::1]:4321"])
def test_a_bad_datagram_that_is_sent_on_all_the_same_goes_to_our_own_target(text: str) -> None:
    there = Endpoint.parse(text)
    bad = bad_ones(there)
    lenient = {what: Datagram.decode(b"\0\0" + bad[what][2:]) for what in ("RSV that is not 0", "port 0")}
    assert {(one.host, one.port) for one in lenient.values()} == {(there.host, there.port), (there.host, 0)}
    known = b"\x01" if there.host.version == 4 else b"\x04"  # type: ignore[union-attr]  # it is an address
    unknown = Datagram.decode(bad["an unknown ATYP"].replace(b"\x09", known, 1))
    assert (unknown.host, unknown.port) == (there.host, there.port)
    name = Datagram.decode(bad["a name that there cannot be"])
    assert (name.host, name.port) == (b"x" * 64 + b".invalid", there.port)


def test_an_association_that_outlives_its_connection_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it has ended shows by silence, and so does a slow machine: here each datagram is waited for."""
    monkeypatch.setattr("tabi.client.doctor.datagrams._MOMENT", PATIENCE)
    monkeypatch.setattr("tabi.client.doctor.datagrams._PAUSE", 0.0)
    monkeypatch.setattr("tabi.client.doctor.patient._MOST_ANSWERS", 1000)
    with sick("udp-outlives") as proxy:
        assert put(patient(proxy.url, SHORT), "udp-life").verdict is Verdict.WRONG


@pytest.mark.parametrize(("fault", "name"), ODD)
def test_what_is_odd_is_told(fault: str, name: str) -> None:
    with sick(fault) as proxy:
        assert put(patient(proxy.url), name).verdict is Verdict.ODD


@pytest.mark.parametrize(("fault", "name"), NOT_OFFERED)
def test_what_is_not_offered_is_no_fault(fault: str, name: str) -> None:
    with sick(fault) as proxy:
        assert put(patient(proxy.url), name).verdict is Verdict.NOT_OFFERED


@pytest.mark.parametrize(("fault", "name"), OF_LOGINS)
def test_faults_with_logins_are_found(fault: str, name: str) -> None:
    with sick(fault, login=True) as proxy:
        assert put(patient(proxy.url), name).verdict is Verdict.WRONG


def test_what_is_asked_for_is_nobody_but_this_host() -> None:
    with sick() as proxy:
        list(Rounds(patient(proxy.url)))
        names = {name for name in proxy.asked if not name.endswith(".invalid")}
    assert names == {"127.0.0.1", "::1", "0.0.0.0", "localhost", "two.example", "127.0.0.1\0.example"}


def test_a_proxy_elsewhere_is_asked_for_the_named_target_alone() -> None:
    with sick() as proxy:
        one = patient(proxy.url)
        far = Place(one.place.proxy, target=Endpoint.parse(f"127.0.0.9:{closed_port('127.0.0.9')}"))
        found = {found.name: found.result.verdict for found in Rounds(Patient(one.hop, far, PATIENCE))}
        assert proxy.asked == {"127.0.0.9"}
    assert found["methods"] is Verdict.OK
    assert found["connect"] is Verdict.WRONG
    assert found["bulk"] is found["bind"] is found["associate"] is Verdict.NOT_TRIED


@pytest.mark.parametrize(("address", "here"), [("127.0.0.1", True), ("192.0.2.1", True), ("192.0.2.2", False)])
def test_nobody_connects_where_a_proxy_tells_unless_it_is_here(address: str, here: bool) -> None:
    proxy = Endpoint.parse("192.0.2.1:1080")
    place = Place(proxy, near=True, homes=(IPv4Address("192.0.2.1"),))
    assert is_here(IPv4Address(address), place) is here


def test_what_a_named_target_has_to_be_answered_by_is_compared() -> None:
    there = Endpoint.parse(f"127.0.0.1:{closed_port()}")
    with sick() as proxy:
        right, wrong = Expected(there, Reply.CONNECTION_REFUSED), Expected(there, Reply.NOT_ALLOWED)
        one = patient(proxy.url, expected=(right, wrong))
        assert put(one, "expected-1").verdict is Verdict.OK
        assert put(one, "expected-2").verdict is Verdict.WRONG


def test_a_proxy_for_http_is_examined_as_one() -> None:
    with connect_proxy() as (host, port):
        one = patient(f"http://{host}:{port}")
        names = [examination.name for _, examination in examinations(one)]
        good = ("connect", "split", "coalesced", "early-data", "connect-ipv6", "bulk", "half-close-up", "refused")
        assert {name: put(one, name).verdict for name in good} == dict.fromkeys(good, Verdict.OK)
    assert {"methods", "bound-address", "bind", "associate"}.isdisjoint(names)


def lenient(line: Line) -> Line:
    """Take for whole what the codec refuses: a doctor says wrong things on purpose."""

    def size(data: Buffer) -> int:
        assert line.hears is not None
        try:
            return line.hears(data)
        except ProtocolError:
            return len(data)

    return line if line.hears is None else replace(line, hears=size)


PART = tuple(map(lenient, socks5_server(Endpoint.parse("127.0.0.1:9"))))
VICES = {
    "good": Vice(),
    "dribble": dribble(),
    "silent": stall(Stage.CONNECT),
    "no reply": stall(Stage.REQUEST),
    "noise": garbage(Stage.GREETING),
    "noise for a reply": garbage(Stage.REQUEST),
    "flood": huge(Stage.RELAY),
    "ends at once": close_at(0),
    "ends in the reply": close_at(5),
    "resets": reset_at(3),
}


@pytest.mark.parametrize("vice", VICES.values(), ids=VICES)
def test_whatever_a_proxy_does_the_examination_ends(vice: Vice) -> None:
    with EvilPeer(PART, vice).listening() as where:
        rounds = Rounds(patient(f"socks5h://{where}", 0.02))
        found = list(rounds)
    assert rounds.faults
    assert len({one.name for one in found}) == len(found) == len(list(examinations(rounds.patient)))


def test_whatever_an_http_proxy_does_the_examination_ends() -> None:
    with EvilPeer(http_proxy(answer=b"HTTP/1.1 200 " + b"x" * 100_000)).listening() as where:
        rounds = Rounds(patient(f"http://{where}", 0.02))
        assert {found.name: found.result.verdict for found in rounds}["connect"] is Verdict.WRONG


def test_idle_limits_are_told() -> None:
    with EvilPeer(PART, close_at(0)).listening() as where:
        one = patient(f"socks5h://{where}", 0.02, idle=PATIENCE)
        found = {found.name: found.result for found in Rounds(one) if found.group == "idle limits"}
    assert found["idle-silent"].verdict is found["idle-half"].verdict is Verdict.OK
    assert found["idle-silent"].numbers["seconds"] < PATIENCE
    assert found["idle-tunnel"].verdict is Verdict.NOT_TRIED


@pytest.mark.parametrize(("long", "verdict"), [(0.1, Verdict.WRONG), (60.0, Verdict.UNKNOWN)])
def test_a_handshake_that_is_waited_for_too_long_is_a_fault(
    long: float, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabi.client.doctor.idle._LONG", long)
    with EvilPeer(PART, stall(Stage.CONNECT)).listening() as where:
        found = {examination.name: result for examination, result in watch(patient(f"socks5h://{where}", idle=0.1))}
    assert found["idle-silent"].verdict is found["idle-half"].verdict is verdict
    assert found["idle-greeted"].verdict is found["idle-tunnel"].verdict is Verdict.NOT_TRIED


def test_what_is_established_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabi.client.doctor.idle._LONG", 0.1)
    with sick() as proxy:
        one = patient(proxy.url, idle=0.1)
        one.has |= {Need.METHOD, Need.TUNNEL, Need.DATAGRAMS}
        one.methods = (Method.NONE,)
        found = {examination.name: result.verdict for examination, result in watch(one)}
    assert found["idle-tunnel"] is found["idle-association"] is Verdict.OK
    assert found["idle-silent"] is found["idle-half"] is Verdict.WRONG


# --- the report


@pytest.fixture
def rounds() -> Iterator[Rounds]:
    with sick("bnd-zero", "no-half-close", login=True) as proxy:
        yield Rounds(patient(proxy.url))


def test_the_report_tells_faults_and_why_they_matter(rounds: Rounds) -> None:
    lines = list(in_text(rounds, colours=False, evidence=True))
    assert lines[0] == f"{rounds.patient.hop}, on this host"
    (at,) = [number for number, line in enumerate(lines) if "half-close of the client" in line]
    assert lines[at].startswith("  WRONG  ")
    assert lines[at + 1].strip().startswith("why it matters: whoever ends its request")
    assert "(the login)" in "".join(lines)
    assert "sesame" not in "".join(lines)
    assert LOGIN[1].hex(" ") not in "".join(lines)
    assert lines[-1].startswith("2 faults; ")
    assert ", 1 odd, " in lines[-1]
    assert not any("\x1b" in line for line in lines)


def test_the_report_has_colours_where_they_are_wanted(rounds: Rounds) -> None:
    lines = list(in_text(rounds, colours=True, evidence=False))
    assert "  \x1b[1;31mWRONG         \x1b[0m  half-close of the client" in "\n".join(lines)


def test_the_report_for_programs_has_the_same(rounds: Rounds) -> None:
    told = json.loads(in_json(rounds))
    assert set(told) == {"proxy", "near", "faults", "verdicts", "findings"}
    assert told["faults"] == told["verdicts"]["WRONG".lower()] == 2
    keys = {"group", "name", "title", "verdict", "detail", "why", "numbers", "evidence"}
    assert all(set(found) == keys for found in told["findings"])
    (stages,) = [found for found in told["findings"] if found["name"] == "stages"]
    assert set(stages["numbers"]) == {"connection", "greeting", "login", "request", "round trip of data"}
    assert LOGIN[1].hex(" ") not in json.dumps(told)


# --- the command


def doctor(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    command = [sys.executable, "-m", "tabi", "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)


def test_the_command_says_by_its_exit_code_what_it_found() -> None:
    with serving() as server, sick("bnd-echo") as proxy:
        good = doctor(f"socks5h://{server.addresses[0]}", "--timeout", str(PATIENCE))
        bad = doctor(proxy.url, "--timeout", str(PATIENCE), "--json")
    assert (good.returncode, good.stderr) == (0, ""), good.stdout
    assert "no fault; " in good.stdout
    assert bad.returncode == 1
    assert [one["name"] for one in json.loads(bad.stdout)["findings"] if one["verdict"] == "wrong"] == ["bound-address"]


def test_the_command_says_that_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"socks5h://127.0.0.1:{closed_port()}"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "refused" in said.err.lower()


@pytest.mark.parametrize(
    "wrong",
    [["ftp://127.0.0.1"], ["socks5h://127.0.0.1", "--timeout", "0"], ["socks5h://127.0.0.1", "--target", "nowhere"],
     ["socks5h://127.0.0.1", "--expect", "127.0.0.1:9=no"], ["socks5h://127.0.0.1", "--idle", "-1"], ["@/nonexistent"]],
)  # fmt: skip
def test_the_command_says_what_is_wrong_with_its_arguments(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *wrong]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tabi: ")
