"""What failed logins cost whom, and for how long; the time is in the test's hand."""

from ipaddress import ip_address

import pytest

from tabi.errors import UsageError
from tabi.server.admission import client_key, show_client
from tabi.server.failures import Failures
from tabi.server.lockouts import Gate, LockoutRules, Lockouts, parse_client

HERE = client_key(ip_address("192.0.2.1"))
THERE = client_key(ip_address("192.0.2.2"))
NOW = 5000.0


def fail(lockouts: Lockouts, times: int, *, user: bytes = b"alice", now: float = NOW, exempt: bool = False) -> None:
    for _ in range(times):
        lockouts.failed(now, HERE, user, exempt=exempt)


@pytest.mark.parametrize(("failures", "delay"), [(1, 1.0), (2, 2.0), (3, 4.0), (4, 4.0), (9, 4.0)])
def test_each_failure_delays_the_next_answer_of_the_pair_and_of_the_client(failures: int, delay: float) -> None:
    lockouts = Lockouts()
    fail(lockouts, failures)
    assert lockouts.pair_gate(NOW, HERE, b"alice") == Gate(NOW + delay)
    assert lockouts.client_gate(NOW, HERE) == Gate(NOW + delay)


def test_nothing_counts_against_others() -> None:
    lockouts = Lockouts()
    fail(lockouts, 10)
    assert lockouts.pair_gate(NOW, HERE, b"bob").opens == 0
    assert lockouts.pair_gate(NOW, HERE, b"alice\0").opens == 0
    assert lockouts.pair_gate(NOW, THERE, b"alice").opens == 0
    assert lockouts.client_gate(NOW, THERE).opens == 0


def test_ten_failures_in_ten_minutes_close_the_pair_for_fifteen() -> None:
    lockouts = Lockouts()
    for second in range(9):
        lockouts.failed(NOW + second * 66, HERE, b"alice")
    assert not lockouts.pair_gate(NOW + 599, HERE, b"alice").closed
    lockouts.failed(NOW + 599, HERE, b"alice")
    gate = lockouts.pair_gate(NOW + 599, HERE, b"alice")
    assert (gate.opens, gate.closed) == (NOW + 599 + 900, True)
    assert "10 failed logins" in gate.why
    assert lockouts.pair_gate(NOW + 599 + 899.9, HERE, b"alice").closed
    assert lockouts.pair_gate(NOW + 599 + 900, HERE, b"alice") == Gate(0.0)
    assert not lockouts.client_gate(NOW + 600, HERE).closed


def test_failures_older_than_the_window_do_not_count() -> None:
    lockouts = Lockouts()
    for minute in range(30):
        lockouts.failed(NOW + minute * 67, HERE, b"alice")
        assert not lockouts.pair_gate(NOW + minute * 67, HERE, b"alice").closed
    last = NOW + 29 * 67
    assert lockouts.pair_gate(last + 600, HERE, b"alice") == Gate(0.0)
    assert lockouts.client_gate(last + 600, HERE) == Gate(0.0)
    assert lockouts.entries(last + 600) == []


def test_what_fails_while_closed_does_not_prolong_it() -> None:
    lockouts = Lockouts()
    fail(lockouts, 10)
    fail(lockouts, 5, now=NOW + 500)
    assert lockouts.pair_gate(NOW + 500, HERE, b"alice").opens == NOW + 900
    fail(lockouts, 1, now=NOW + 900)
    assert lockouts.pair_gate(NOW + 900, HERE, b"alice") == Gate(NOW + 901)


def test_what_once_closed_a_pair_is_paid_for_even_if_it_is_younger_than_the_window() -> None:
    lockouts = Lockouts(LockoutRules(closed=60.0))
    fail(lockouts, 10)
    fail(lockouts, 9, now=NOW + 60)
    assert lockouts.pair_gate(NOW + 60, HERE, b"alice") == Gate(NOW + 64)
    fail(lockouts, 1, now=NOW + 60)
    assert lockouts.pair_gate(NOW + 60, HERE, b"alice").closed


def test_many_users_of_one_client_close_it_however_few_failures_each_had() -> None:
    lockouts = Lockouts()
    for number in range(19):
        fail(lockouts, 2, user=b"%d" % number)
    assert not lockouts.client_gate(NOW, HERE).closed
    fail(lockouts, 1, user=b"19")
    gate = lockouts.client_gate(NOW, HERE)
    assert (gate.opens, gate.closed) == (NOW + 900, True)
    assert "20 users" in gate.why
    assert not lockouts.client_gate(NOW + 900, HERE).closed


def test_users_that_failed_long_ago_are_not_among_the_many() -> None:
    lockouts = Lockouts()
    for number in range(40):
        lockouts.failed(NOW + number * 32, HERE, b"%d" % number)
    assert not lockouts.client_gate(NOW + 39 * 32, HERE).closed


def test_one_user_never_closes_its_client() -> None:
    lockouts = Lockouts()
    fail(lockouts, 500)
    assert not lockouts.client_gate(NOW, HERE).closed


def test_exempt_clients_are_not_counted_but_their_pairs_are() -> None:
    lockouts = Lockouts()
    for number in range(100):
        fail(lockouts, 1, user=b"%d" % number, exempt=True)
    fail(lockouts, 10, exempt=True)
    assert lockouts.client_gate(NOW, HERE) == Gate(0.0)
    assert lockouts.pair_gate(NOW, HERE, b"alice").closed


def test_a_success_clears_its_pair_only() -> None:
    lockouts = Lockouts()
    fail(lockouts, 3)
    fail(lockouts, 2, user=b"bob")
    lockouts.succeeded(NOW, HERE, b"alice")
    assert lockouts.pair_gate(NOW, HERE, b"alice") == Gate(0.0)
    assert lockouts.pair_gate(NOW, HERE, b"bob").opens == NOW + 2
    assert lockouts.client_gate(NOW, HERE).opens == NOW + 4


def test_a_user_is_known_for_an_hour_or_until_a_failure() -> None:
    lockouts = Lockouts()
    assert not lockouts.is_known(NOW, HERE, b"alice")
    lockouts.succeeded(NOW, HERE, b"alice")
    assert lockouts.is_known(NOW + 3599, HERE, b"alice")
    assert not lockouts.is_known(NOW + 3600, HERE, b"alice")
    assert not lockouts.is_known(NOW, THERE, b"alice")
    fail(lockouts, 1)
    assert not lockouts.is_known(NOW, HERE, b"alice")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_64(one: str, other: str, same: bool) -> None:
    lockouts = Lockouts()
    lockouts.failed(NOW, client_key(ip_address(one)), b"alice")
    assert (lockouts.pair_gate(NOW, client_key(ip_address(other)), b"alice").opens > 0) is same


def close(lockouts: Lockouts, user: bytes, now: float = NOW) -> None:
    for _ in range(10):
        lockouts.failed(now, HERE, user, exempt=True)


def is_closed(lockouts: Lockouts, user: bytes, now: float = NOW + 800) -> bool:
    return lockouts.pair_gate(now, HERE, user).closed


SIXTEEN = LockoutRules(entries=1)
"""As many rows as a window has, so that everything stands beside everything."""


def test_no_number_of_others_that_fail_less_makes_a_pair_forgotten() -> None:
    lockouts = Lockouts(SIXTEEN)
    closed = [b"closed %d" % number for number in range(14)]
    for user in closed:
        close(lockouts, user)
    for _ in range(2):
        lockouts.failed(NOW, HERE, b"twice", exempt=True)
    for number in range(500):
        lockouts.failed(NOW + 1, HERE, b"spray %d" % number, exempt=True)
        assert lockouts.pair_gate(NOW + 1, HERE, b"spray %d" % number).opens == NOW + 2, "the last one always counts"
    assert lockouts.pair_gate(NOW + 1, HERE, b"twice").opens == NOW + 2
    assert [is_closed(lockouts, user) for user in closed] == [True] * 14


def test_no_number_of_others_with_fewer_users_makes_a_client_forgotten() -> None:
    lockouts = Lockouts(SIXTEEN)
    for number in range(20):
        lockouts.failed(NOW, HERE, b"%d" % number)
    for number in range(15):
        lockouts.failed(NOW, THERE, b"%d" % number)
    for number in range(300):
        client = number.to_bytes(8, "big")
        for user in range(1 + number % 14):
            lockouts.failed(NOW + 1, client, b"%d" % user)
        assert lockouts.client_gate(NOW + 1, client).opens > NOW + 1
    assert lockouts.client_gate(NOW + 1, HERE).closed
    for number in range(15, 20):
        lockouts.failed(NOW + 2, THERE, b"%d" % number)
    assert lockouts.client_gate(NOW + 2, THERE).closed, "all twenty were remembered"


def test_where_all_are_closed_a_new_one_takes_the_place_of_that_which_opens_first() -> None:
    lockouts = Lockouts(SIXTEEN)
    for number in range(16):
        close(lockouts, b"%d" % number, NOW + (number + 5) % 16)
    lockouts.failed(NOW + 20, HERE, b"new", exempt=True)
    assert lockouts.pair_gate(NOW + 20, HERE, b"new").opens == NOW + 21
    assert [number for number in range(16) if not is_closed(lockouts, b"%d" % number)] == [11]


def test_those_who_do_not_count_any_more_go_first() -> None:
    lockouts = Lockouts(SIXTEEN)
    for number in range(8):
        close(lockouts, b"old %d" % number, NOW - 900)
        lockouts.failed(NOW, HERE, b"%d" % number, exempt=True)
    for number in range(8, 16):
        lockouts.failed(NOW, HERE, b"%d" % number, exempt=True)
    assert [lockouts.pair_gate(NOW, HERE, b"%d" % number).opens for number in range(16)] == [NOW + 1] * 16


def test_who_is_known_is_bounded_and_the_first_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabi.server.lockouts.MOST_KNOWN", 3)
    lockouts = Lockouts()
    for number in range(4):
        lockouts.succeeded(NOW, HERE, b"%d" % number)
    assert [lockouts.is_known(NOW, HERE, b"%d" % number) for number in range(4)] == [False, True, True, True]


def test_workers_know_at_once_what_counts_and_what_was_lifted() -> None:
    failures = Failures.private(LockoutRules().shape)
    one, other = Lockouts(failures=failures), Lockouts(failures=failures)
    fail(one, 9)
    assert not other.pair_gate(NOW + 5, HERE, b"alice").closed
    fail(other, 1)
    assert one.pair_gate(NOW, HERE, b"alice").closed
    assert one.entries(NOW) == other.entries(NOW) != []
    assert one.lift(NOW) == 2
    assert other.entries(NOW) == []
    assert other.pair_gate(NOW, HERE, b"alice") == Gate(0.0)


def test_who_is_known_to_one_worker_is_not_after_a_failure_elsewhere() -> None:
    failures = Failures.private(LockoutRules().shape)
    one, other = Lockouts(failures=failures), Lockouts(failures=failures)
    one.succeeded(NOW, HERE, b"alice")
    assert not other.is_known(NOW, HERE, b"alice")
    fail(other, 1, user=b"bob", now=NOW + 1)
    assert one.is_known(NOW + 1, HERE, b"alice")
    fail(other, 1, now=NOW + 1)
    assert not one.is_known(NOW + 2000, HERE, b"alice"), "long after the failure itself is forgotten"


def test_the_list_shows_the_closed_first() -> None:
    lockouts = Lockouts()
    fail(lockouts, 1, user=b"bob\xff")
    fail(lockouts, 10)
    lockouts.failed(NOW, client_key(ip_address("2001:db8::1")), b"carol", exempt=True)
    rows = [entry.row() for entry in lockouts.entries(NOW + 0.5)]
    assert [(row["client"], row["user"], row["failures"], row["closed"], row["seconds"]) for row in rows] == [
        ("192.0.2.1", "alice", 10, 1, 899.5),
        ("192.0.2.1", "", 10, 0, 3.5),
        ("192.0.2.1", "bob\\xff", 1, 0, 0.5),
        ("2001:db8::/64", "carol", 1, 0, 0.5),
    ]
    assert rows[1]["users"] == 2


@pytest.mark.parametrize(
    ("client", "user", "lifted", "left"),
    [
        (None, None, 5, []),
        (HERE, None, 3, [("192.0.2.2", b"alice"), ("192.0.2.2", None)]),
        (HERE, b"alice", 1, [("192.0.2.1", None), ("192.0.2.1", b"bob"), ("192.0.2.2", None), ("192.0.2.2", b"alice")]),
        (None, b"alice", 2, [("192.0.2.1", None), ("192.0.2.1", b"bob"), ("192.0.2.2", None)]),
        (b"nope", None, 0, None),
    ],
)
def test_lifting(
    client: bytes | None, user: bytes | None, lifted: int, left: list[tuple[str, bytes | None]] | None
) -> None:
    lockouts = Lockouts()
    fail(lockouts, 10)
    fail(lockouts, 1, user=b"bob")
    lockouts.failed(NOW, THERE, b"alice")
    lockouts.failed(NOW - 700, HERE, b"long ago", exempt=True)
    assert lockouts.lift(NOW, client, user) == lifted
    if left is not None:
        assert {(entry.client, entry.user) for entry in lockouts.entries(NOW)} == set(left)


def test_clients_are_written_as_they_are_counted() -> None:
    assert show_client(HERE) == "192.0.2.1"
    assert show_client(client_key(ip_address("2001:db8:1:2:3::4"))) == "2001:db8:1:2::/64"


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8:1:2:3::4", "2001:db8:1:2::/64", "::ffff:192.0.2.1"])
def test_clients_are_read_as_they_are_written(text: str) -> None:
    client = parse_client(text)
    assert parse_client(show_client(client)) == client
    assert show_client(client) in ("192.0.2.1", "2001:db8:1:2::/64")


@pytest.mark.parametrize("text", ["", "192.0.2.0/24", "2001:db8::/32", "2001:db8::1/64", "alice", "127.1"])
def test_what_is_no_client_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no client"):
        parse_client(text)
