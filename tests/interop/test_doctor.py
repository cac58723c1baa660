"""`tabi doctor` on proxies that others wrote: the faults that are known of them are found, and what is right is not."""

from pathlib import Path

from helpers.examined import SHORT, patient, put
from helpers.proxies import dante, microsocks, ssh, tinyproxy
from tabi.client.doctor.finding import Verdict
from tabi.client.doctor.patient import Patient

OK, WRONG, ODD, NOT_OFFERED = Verdict.OK, Verdict.WRONG, Verdict.ODD, Verdict.NOT_OFFERED

RIGHT = ("connect", "connect-name", "banner", "bulk", "stages")
MICROSOCKS = {
    **dict.fromkeys((*RIGHT, "methods", "no-common-method", "no-methods", "many-methods", "connect-ipv6"), OK),
    **dict.fromkeys(("unknown-command", "unknown-address-type", "refused"), OK),
    **dict.fromkeys(("cut-greeting", "split", "nul-in-name"), WRONG),
    **dict.fromkeys(("half-close-up", "half-close-down", "reset-up", "reset-down"), WRONG),
    **dict.fromkeys(("bound-address", "unknown-name", "wrong-version"), ODD),
    **dict.fromkeys(("bind", "associate", "resolve", "socks4"), NOT_OFFERED),
}
MICROSOCKS_IS_SILENT = ("coalesced", "early-data")
DANTE = {
    **dict.fromkeys((*RIGHT, "methods", "no-common-method", "many-methods", "cut-greeting", "split"), OK),
    **dict.fromkeys(("coalesced", "early-data", "socks4", "bound-address", "refused"), OK),
    # not "bind-stranger": Dante asks the name server of this machine for the stranger's name
    **dict.fromkeys(("half-close-up", "half-close-down", "bind"), OK),
    **dict.fromkeys(("associate", "udp-name", "udp-sizes", "udp-empty", "udp-fragments", "udp-unasked"), OK),
    "udp-life": OK,
    **dict.fromkeys(("socks4a", "unknown-command", "unknown-address-type", "nul-in-name"), WRONG),
    **dict.fromkeys(("reset-up", "reset-down"), WRONG),
}
DANTE_IS_SILENT = ("udp-bad", "udp-stranger")
SSH = {
    **dict.fromkeys((*RIGHT, "methods", "many-methods", "cut-greeting", "wrong-version", "socks4", "socks4a"), OK),
    **dict.fromkeys(("split", "coalesced", "early-data", "connect-ipv6", "half-close-up", "half-close-down"), OK),
    **dict.fromkeys(("no-common-method", "unknown-command", "unknown-address-type", "nul-in-name"), WRONG),
    **dict.fromkeys(("reset-up", "reset-down", "refused", "unknown-name"), WRONG),
    "bound-address": ODD,
    **dict.fromkeys(("bind", "associate", "resolve"), NOT_OFFERED),
}
TINYPROXY = {
    **dict.fromkeys((*RIGHT, "split", "coalesced", "early-data", "connect-ipv6"), OK),
    **dict.fromkeys(("half-close-up", "half-close-down", "reset-up", "reset-down"), WRONG),
    "refused": ODD,
}


def verdicts(one: Patient, expected: dict[str, Verdict]) -> dict[str, Verdict]:
    """Put the questions to which there is an answer in `expected`; /etc/hosts is as this machine has it."""
    return {name: put(one, name).verdict for name in expected}


def test_faults_of_microsocks_are_found(tmp_path: Path) -> None:
    with microsocks(tmp_path) as where:
        assert verdicts(patient(f"socks5h://{where}"), MICROSOCKS) == MICROSOCKS
        for name in MICROSOCKS_IS_SILENT:
            assert put(patient(f"socks5h://{where}", SHORT), name).verdict is WRONG


def test_a_user_name_that_goes_on_behind_a_nul_is_found_in_microsocks(tmp_path: Path) -> None:
    with microsocks(tmp_path, "-u", "alice", "-P", "sesame") as where:
        expected = {"login-remembered": OK, "login-skipped": OK, "login-wrong": OK, "login-nul": WRONG}
        assert verdicts(patient(f"socks5h://alice:sesame@{where}"), expected) == expected


def test_a_login_that_is_remembered_is_found_in_microsocks(tmp_path: Path) -> None:
    with microsocks(tmp_path, "-1", "-u", "alice", "-P", "sesame") as where:
        one = patient(f"socks5h://alice:sesame@{where}")
        assert put(one, "login-remembered").verdict is WRONG


def test_faults_of_dante_are_found(tmp_path: Path) -> None:
    with dante(tmp_path) as where:
        assert verdicts(patient(f"socks5h://{where}"), DANTE) == DANTE
        for name in DANTE_IS_SILENT:
            assert put(patient(f"socks5h://{where}", SHORT), name).verdict is WRONG


def test_faults_of_ssh_are_found(tmp_path: Path) -> None:
    with ssh(tmp_path) as where:
        assert verdicts(patient(f"socks5h://{where}"), SSH) == SSH


def test_a_proxy_for_http_is_told_truly(tmp_path: Path) -> None:
    with tinyproxy(tmp_path) as where:
        assert verdicts(patient(f"http://{where}"), TINYPROXY) == TINYPROXY
