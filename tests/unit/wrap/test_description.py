"""What a user asks for, and the program that comes of it."""

import os

import pytest

from tabi.addr import Name
from tabi.errors import UsageError
from tabi.machine.url import parse_proxies
from tabi.wrap import description
from tabi.wrap.description import Wanted, describe, naming
from tabi.wrap.program import Identity, identity_of
from tabi.wrap.side_doors import NAME_SERVICES
from tabi.wrap.variables import of_program, proxy_variable


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"TABI_PROXY": "t", "all_proxy": "a", "ALL_PROXY": "A"}, ("TABI_PROXY", "t")),
        ({"all_proxy": "a", "ALL_PROXY": "A"}, ("all_proxy", "a")),
        ({"ALL_PROXY": "A", "no_proxy": "*"}, ("ALL_PROXY", "A")),
        ({"TABI_PROXY": "", "ALL_PROXY": "A"}, ("ALL_PROXY", "A")),
        ({"http_proxy": "h", "HTTPS_PROXY": "h"}, None),
    ],
)
def test_the_proxy_of_the_environment(environ: dict[str, str], found: tuple[str, str] | None) -> None:
    assert proxy_variable(environ) == found


_PROXIES = ["TABI_PROXY", "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY"]


def test_variables_that_name_a_proxy_are_taken_out_in_both_cases() -> None:
    environ = dict.fromkeys([*_PROXIES, *map(str.lower, _PROXIES), "PATH", "LOCALDOMAIN"], "x")
    assert of_program(environ, keeps_proxies=False) == {"PATH": "x"}
    assert of_program(environ, keeps_proxies=True) == {name: "x" for name in environ if name != "LOCALDOMAIN"}


def test_names_go_to_every_proxy_whatever_its_scheme() -> None:
    given = parse_proxies(["socks5://a:1", "socks4://b:2", "socks5h://c:3", "socks4a://d:4", "http://e:5"])
    assert [str(hop) for hop in naming(given)] == [
        "socks5h://a:1", "socks4a://b:2", "socks5h://c:3", "socks4a://d:4", "http://e:5"
    ]  # fmt: skip


def described(monkeypatch: pytest.MonkeyPatch, *, is_root: bool, **fields: object) -> description.Program:
    monkeypatch.setattr(description, "is_privileged", lambda: is_root)
    fields.setdefault("environ", {"PATH": "/bin"})
    return describe(Wanted(argv=("true",), **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{}, {"user": "0"}, {"environ": {"SUDO_UID": "0"}}])
def test_a_strict_program_of_root_is_somebody_elses(monkeypatch: pytest.MonkeyPatch, fields: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"--strict: .* by --user"):
        described(monkeypatch, is_root=True, strict=True, **fields)
    assert described(monkeypatch, is_root=True, strict=True, user="65534").strict
    assert described(monkeypatch, is_root=False, strict=True).strict


def test_a_program_looks_names_up_in_the_gate_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    program = described(monkeypatch, is_root=False, search=[Name("corp.example")])
    assert "nameserver 198.18.0.1\n" in program.resolv
    assert "search corp.example\n" in program.resolv
    assert "hosts: files dns\n" in program.nsswitch


def test_sockets_of_services_are_hidden_unless_they_are_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = {"PATH": "/bin", "XDG_RUNTIME_DIR": "/run/somewhere"}
    hidden = described(monkeypatch, is_root=False, environ=runtime).masks
    kept = described(monkeypatch, is_root=False, environ=runtime, keep_sockets=True).masks
    assert {"/run/somewhere/bus", f"/run/user/{os.getuid()}/bus", *NAME_SERVICES} <= set(hidden)
    assert kept == NAME_SERVICES


def test_an_ordinary_user_is_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert described(monkeypatch, is_root=False, environ={"SUDO_UID": "1"}).identity is None
    with pytest.raises(UsageError, match="--user is for root"):
        described(monkeypatch, is_root=False, user="root")


def test_root_runs_it_as_who_was_named_or_has_called_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    sudo = {"SUDO_UID": "4294967000", "SUDO_GID": "77"}  # nobody has that number
    assert described(monkeypatch, is_root=True, environ=sudo).identity == Identity(4294967000, 77, (), {})
    named = described(monkeypatch, is_root=True, environ=sudo | {"HOME": "/elsewhere"}, user="root")
    assert named.identity == identity_of("0")
    assert (named.environ["USER"], named.environ["HOME"]) == ("root", identity_of("root").environ["HOME"])
    assert described(monkeypatch, is_root=True).identity is None


@pytest.mark.parametrize("user", ["no such user", "4294967000"])
def test_a_user_that_does_not_exist_is_named(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=user):
        described(monkeypatch, is_root=True, user=user)


@pytest.mark.parametrize("argv", [(), ("",)])
def test_without_a_program_there_is_none(argv: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="no program"):
        describe(Wanted(argv=argv, environ={}))
