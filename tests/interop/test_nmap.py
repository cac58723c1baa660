"""nmap's socks-brute, which finds a weak password on other servers within seconds, against accounts (row E2)."""

from pathlib import Path

import pytest

from helpers.members import PASSWORDS, Members
from helpers.programs import need, run
from helpers.serving import Running, serving
from tabi.server.auth import Passwords

WORDS = 40
WEAK = b"monkey"


@pytest.fixture
def lists(tmp_path: Path) -> list[str]:
    """Write a list of names and one of passwords; the weak one is the last."""
    (tmp_path / "users").write_text("alice\n")
    (tmp_path / "words").write_text("".join(f"guess{number}\n" for number in range(WORDS - 1)) + f"{WEAK.decode()}\n")
    return [f"userdb={tmp_path / 'users'}", f"passdb={tmp_path / 'words'}", "brute.retries=0", "brute.firstonly=true"]


def brute_force(running: Running | Members, lists: list[str], seconds: int) -> str:
    host, port = running.address
    arguments = ",".join([*lists, f"unpwdb.timelimit={seconds}s"])
    done = run(
        need("nmap"), "-n", "-Pn", "-sT", "--unprivileged", "-p", str(port), "--script", "+socks-brute",
        "--script-args", arguments, "--script-timeout", f"{2 * seconds}s", host,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_it_does_find_the_password_where_nothing_slows_it_down(lists: list[str]) -> None:
    need("nmap")
    with serving(authenticator=Passwords({b"alice": WEAK})) as server:
        assert "alice:monkey - Valid credentials" in brute_force(server, lists, 10)


def test_it_gets_a_handful_of_guesses_and_not_the_password(lists: list[str], members: Members) -> None:
    need("nmap")
    assert PASSWORDS["alice"].encode() == WEAK
    report = brute_force(members, lists, 10)
    assert "Valid credentials" not in report
    assert 1 <= members.failures("alice") <= 10
    assert not [line for line in members.lines if line.get("user") == "alice" and "verdict" in line]
