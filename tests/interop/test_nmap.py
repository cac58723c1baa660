"""nmap's socks-brute, which finds a weak password on other servers within seconds, against accounts (row E2)."""

import re
from pathlib import Path

import pytest

from helpers.accounts import Comparisons, table
from helpers.programs import need, run
from helpers.serving import Running, serving
from tabi.server.accounts import Accounts
from tabi.server.auth import Passwords

WORDS = 40
WEAK = b"monkey"


@pytest.fixture
def lists(tmp_path: Path) -> list[str]:
    """Write a list of names and one of passwords; the weak one is the last."""
    (tmp_path / "users").write_text("alice\n")
    (tmp_path / "words").write_text("".join(f"guess{number}\n" for number in range(WORDS - 1)) + f"{WEAK.decode()}\n")
    return [f"userdb={tmp_path / 'users'}", f"passdb={tmp_path / 'words'}", "brute.retries=0", "brute.firstonly=true"]


def brute_force(running: Running, lists: list[str], seconds: int) -> str:
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


def test_it_gets_a_handful_of_guesses_and_not_the_password(lists: list[str]) -> None:
    need("nmap")
    compared = Comparisons()
    accounts = Accounts(table({b"alice": WEAK}), compare=compared)
    try:
        with serving(authenticator=accounts) as server:
            report = brute_force(server, lists, 10)
    finally:
        accounts.close()
    assert "Valid credentials" not in report
    guesses = [password for _, password in compared.seen if re.fullmatch(rb"guess\d+|monkey", password)]
    assert 1 <= len(guesses) <= 10
    assert WEAK not in guesses
