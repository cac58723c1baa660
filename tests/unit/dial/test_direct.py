"""Direct dialling: Happy Eyeballs version 2 (RFC 8305) and what is said when it fails, in virtual time."""

import math
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from tabi.addr import Address, Endpoint, Name
from tabi.dial.direct import MOST_ADDRESSES, MOST_AT_ONCE, DirectOptions, direct
from tabi.dial.wishes import Cancel, Connection, Done, Failed, Open, Resolve, Sleep
from tabi.errors import ConfigError, DeniedError, DialError, DialTimeoutError, Reply, Stage
from tabi.testing.clock import FakeClock

NAME = Name("target.example")
V4 = [IPv4Address(f"192.0.2.{n}") for n in range(1, 9)]
V6 = [IPv6Address(f"2001:db8::{n}") for n in range(1, 9)]
NEVER = (math.inf, None)


def failing(reply: Reply, seconds: float = 0.0) -> tuple[float, DialError]:
    return seconds, DialError(f"failed with {reply}", reply=reply)


def no_such_name() -> DialError:
    return DialError("no such name", stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE, retryable=False)


def server_failure() -> DialError:
    return DialError("the name servers failed", stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE)


class Dial:
    """One dial of a name: its answers, what opens, and what came of it."""

    def __init__(self, *, aaaa=(0.0, ()), a=(0.0, ()), opens=None, permit=lambda _: True, host=NAME, **options):
        self.clock = FakeClock()
        self.connection: Connection | None = None
        self.error: Exception | None = None
        plan = direct(Endpoint(host, 80), permit=permit, options=DirectOptions(**options))
        try:
            self.connection = self.clock.run(plan, resolve={(NAME, 6): aaaa, (NAME, 4): a}, open=opens or {})
        except (DialError, DeniedError) as error:
            self.error = error

    @property
    def attempts(self) -> list[tuple[float, Address]]:
        return [(round(at, 6), it.address) for at, it in self.clock.transcript if isinstance(it, Open)]

    @property
    def lookups(self) -> list[tuple[float, int]]:
        return [(at, it.family) for at, it in self.clock.transcript if isinstance(it, Resolve)]

    @property
    def cancelled(self) -> list[object]:
        return [it.wish for _, it in self.clock.transcript if isinstance(it, Cancel)]


def test_a_literal_address_is_opened_without_a_look_up() -> None:
    dial = Dial(host=V6[0], opens={V6[0]: (0.1, None)})
    assert dial.lookups == []
    assert dial.attempts == [(0, V6[0])]
    assert dial.connection is not None
    assert dial.connection.remote == Endpoint(V6[0], 80)


def test_a_literal_address_that_is_refused_by_policy_is_never_opened() -> None:
    dial = Dial(host=V4[0], permit=lambda _: False)
    assert isinstance(dial.error, DeniedError)
    assert dial.error.reply is Reply.NOT_ALLOWED
    assert str(V4[0]) in str(dial.error)
    assert dial.attempts == []


def test_a_literal_address_fails_with_its_own_error() -> None:
    refusal = failing(Reply.NOT_ALLOWED)
    assert Dial(host=V4[0], opens={V4[0]: refusal}).error is refusal[1]


def test_both_families_are_asked_at_once_the_preferred_one_first() -> None:
    assert Dial().lookups == [(0, 6), (0, 4)]
    assert Dial(prefer=4).lookups == [(0, 4), (0, 6)]


def test_an_aaaa_answer_starts_the_attempts_at_once() -> None:
    dial = Dial(aaaa=(0.02, (V6[0],)), a=NEVER, opens={V6[0]: (0.1, None)})
    assert dial.attempts == [(0.02, V6[0])]
    assert dial.connection is not None


def test_an_early_a_answer_waits_50_ms_for_aaaa() -> None:
    dial = Dial(aaaa=(0.5, (V6[0],)), a=(0.02, (V4[0],)), opens={V4[0]: (0.1, None)})
    assert dial.attempts == [(0.07, V4[0])]


def test_aaaa_within_the_wait_goes_first() -> None:
    dial = Dial(aaaa=(0.06, (V6[0],)), a=(0.02, (V4[0],)), opens={V6[0]: (0.1, None)})
    assert dial.attempts == [(0.06, V6[0])]


@pytest.mark.parametrize("answer", [(), no_such_name(), server_failure()], ids=["empty", "no name", "failure"])
def test_an_aaaa_answer_without_addresses_ends_the_wait_at_once(answer: object) -> None:
    dial = Dial(aaaa=(0.03, answer), a=(0.02, (V4[0],)), opens={V4[0]: (0.1, None)})
    assert dial.attempts == [(0.03, V4[0])]


def test_an_a_answer_after_an_empty_aaaa_is_tried_at_once() -> None:
    dial = Dial(aaaa=(0.01, ()), a=(0.4, (V4[0],)), opens={V4[0]: (0.1, None)})
    assert dial.attempts == [(0.4, V4[0])]


def test_families_take_turns_beginning_with_aaaa_every_250_ms() -> None:
    opens = dict.fromkeys([*V4[:2], *V6[:3]], NEVER)
    dial = Dial(aaaa=(0, tuple(V6[:3])), a=(0, tuple(V4[:2])), opens=opens, timeout=2)
    assert dial.attempts == [(0, V6[0]), (0.25, V4[0]), (0.5, V6[1]), (0.75, V4[1]), (1, V6[2])]


def test_the_preference_can_be_ipv4() -> None:
    opens = dict.fromkeys([V4[0], V6[0]], NEVER)
    dial = Dial(aaaa=(0, (V6[0],)), a=(0.01, (V4[0],)), opens=opens, timeout=2, prefer=4)
    assert dial.attempts == [(0.01, V4[0]), (0.26, V6[0])]


def test_a_failure_starts_the_next_attempt_at_once_and_the_delay_anew() -> None:
    opens = {V6[0]: failing(Reply.CONNECTION_REFUSED, 0.1), V4[0]: NEVER, V6[1]: (0.1, None)}
    dial = Dial(aaaa=(0, tuple(V6[:2])), a=(0, (V4[0],)), opens=opens)
    assert dial.attempts == [(0, V6[0]), (0.1, V4[0]), (0.35, V6[1])]


def test_late_answers_join_the_untried_ones_in_turn() -> None:
    opens = dict.fromkeys([V4[0], *V6[:3]], NEVER)
    dial = Dial(aaaa=(0, tuple(V6[:3])), a=(0.3, (V4[0],)), opens=opens, timeout=2)
    assert [address for _, address in dial.attempts] == [V6[0], V6[1], V4[0], V6[2]]


def test_a_late_answer_is_tried_at_once_when_the_delay_is_over() -> None:
    opens = {V6[0]: NEVER, V4[0]: (0.1, None)}
    dial = Dial(aaaa=(0, (V6[0],)), a=(0.4, (V4[0],)), opens=opens)
    assert dial.attempts == [(0, V6[0]), (0.4, V4[0])]


def test_a_late_answer_waits_for_the_delay_of_the_attempt_under_way() -> None:
    opens = {V6[0]: NEVER, V4[0]: (0.1, None)}
    dial = Dial(aaaa=(0, (V6[0],)), a=(0.1, (V4[0],)), opens=opens)
    assert dial.attempts == [(0, V6[0]), (0.25, V4[0])]


def test_a_failure_while_an_answer_is_awaited_does_not_end_the_dial() -> None:
    opens = {V6[0]: failing(Reply.CONNECTION_REFUSED), V4[0]: (0.1, None)}
    dial = Dial(aaaa=(0, (V6[0],)), a=(3, (V4[0],)), opens=opens)
    assert dial.attempts == [(0, V6[0]), (3, V4[0])]
    assert dial.connection is not None


def test_duplicates_are_tried_once_mapped_ones_too() -> None:
    mapped = IPv6Address("::ffff:192.0.2.1")
    opens = dict.fromkeys([V4[0], V6[0]], NEVER)
    dial = Dial(aaaa=(0, (mapped, V6[0], V6[0])), a=(0, (V4[0], V4[0])), opens=opens, timeout=3)
    assert sorted(map(str, (address for _, address in dial.attempts))) == ["192.0.2.1", "2001:db8::1"]


def test_the_unspecified_address_that_blocking_name_servers_answer_is_no_address() -> None:
    dial = Dial(aaaa=(0.0, (IPv6Address(0),)), a=(0.0, (IPv4Address(0),)))
    assert dial.attempts == []
    assert dial.error is not None
    assert dial.error.reply is Reply.HOST_UNREACHABLE
    assert str(dial.error) == "no address for target.example"


def test_policy_sees_a_mapped_address_as_ipv4() -> None:
    judged: list[Address] = []
    dial = Dial(aaaa=(0, (IPv6Address("::ffff:127.0.0.1"),)), permit=lambda it: judged.append(it) or False)
    assert judged == [ip_address("127.0.0.1")]
    assert isinstance(dial.error, DeniedError)


def test_the_first_success_wins_and_all_else_is_cancelled() -> None:
    opens = {V6[0]: NEVER, V6[1]: NEVER, V4[0]: (0.3, None)}
    dial = Dial(aaaa=(0, tuple(V6[:2])), a=(0, (V4[0],)), opens=opens)
    assert dial.connection is not None
    assert dial.connection.remote.host == V4[0]
    cancelled = [wish.address for wish in dial.cancelled if isinstance(wish, Open)]
    assert cancelled == [V6[0], V6[1]]
    assert dial.clock.left == ()


def test_a_dial_that_fails_leaves_nothing_under_way() -> None:
    dial = Dial(aaaa=(0, (V6[0],)), opens={V6[0]: NEVER}, timeout=1)
    assert isinstance(dial.error, DialTimeoutError)
    assert [type(wish) for wish in dial.cancelled] == [Open]
    assert dial.clock.left == ()


def test_the_plan_waits_for_no_time_to_clean_up() -> None:
    dial = Dial(host=V4[0], opens={V4[0]: (0.5, None)})
    assert dial.clock.now == 0.5
    assert [it.seconds for _, it in dial.clock.transcript if isinstance(it, Sleep)] == [30.0, 0]


def test_refused_addresses_are_struck_out_and_the_others_tried() -> None:
    dial = Dial(aaaa=(0, tuple(V6[:2])), permit=lambda it: it != V6[0], opens={V6[1]: (0, None)})
    assert dial.attempts == [(0, V6[1])]
    assert dial.connection is not None


def test_an_address_is_judged_when_its_turn_comes() -> None:
    judged: list[Address] = []
    Dial(aaaa=(0, tuple(V6[:3])), permit=lambda it: judged.append(it) or True, opens={V6[0]: (0.1, None)})
    assert judged == [V6[0]]


def test_no_permitted_address_is_a_denial_that_names_all() -> None:
    dial = Dial(aaaa=(0, (V6[0],)), a=(0.4, (V4[0],)), permit=lambda _: False)
    assert isinstance(dial.error, DeniedError)
    assert dial.error.reply is Reply.NOT_ALLOWED
    for what in (NAME, V6[0], V4[0]):
        assert str(what) in str(dial.error)


def test_no_permitted_address_is_a_denial_even_if_the_other_look_up_failed() -> None:
    dial = Dial(aaaa=(0, server_failure()), a=(0, (V4[0],)), permit=lambda _: False)
    assert isinstance(dial.error, DeniedError)


@pytest.mark.parametrize("aaaa", [(), no_such_name()], ids=["no data", "no name"])
@pytest.mark.parametrize("a", [(), no_such_name()], ids=["no data", "no name"])
def test_a_name_without_addresses_is_an_unreachable_host(aaaa: object, a: object) -> None:
    error = Dial(aaaa=(0, aaaa), a=(0.1, a)).error
    assert isinstance(error, DialError)
    assert (error.stage, error.reply, error.retryable) == (Stage.RESOLVE, Reply.HOST_UNREACHABLE, False)
    assert "no address for target.example" in str(error)


@pytest.mark.parametrize("failed_first", [True, False])
@pytest.mark.parametrize(
    "failure",
    [
        DialTimeoutError("the name servers are silent", stage=Stage.RESOLVE),
        server_failure(),
        DialError("the resolver is closed", stage=Stage.RESOLVE, retryable=False),
    ],
    ids=str,
)
def test_a_look_up_that_failed_is_told_before_one_that_found_nothing(
    failure: DialError, failed_first: bool
) -> None:
    answers = [(0, failure), (0, no_such_name())]
    aaaa, a = answers if failed_first else answers[::-1]
    assert Dial(aaaa=aaaa, a=a).error is failure


@pytest.mark.parametrize(
    ("replies", "told"),
    [
        ((1, 2, 3, 4, 6, 5), Reply.CONNECTION_REFUSED),
        ((4, 6, 3), Reply.TTL_EXPIRED),
        ((3, 4, 1), Reply.HOST_UNREACHABLE),
        ((1, 3, 2), Reply.NETWORK_UNREACHABLE),
        ((1, 2), Reply.NOT_ALLOWED),
        ((1, 7), Reply.GENERAL_FAILURE),
    ],
)
def test_the_most_telling_reply_of_all_attempts_is_given(replies: tuple[int, ...], told: Reply) -> None:
    addresses = V4[: len(replies)]
    opens = {address: failing(Reply(reply)) for address, reply in zip(addresses, replies, strict=True)}
    error = Dial(a=(0, tuple(addresses)), opens=opens).error
    assert isinstance(error, DialError)
    assert (error.reply, error.stage) == (told, Stage.CONNECT)
    assert isinstance(error, TimeoutError) == (told is Reply.TTL_EXPIRED)


def test_a_failed_dial_lists_each_address_with_its_reason() -> None:
    opens = {V6[0]: failing(Reply.NETWORK_UNREACHABLE), V4[0]: failing(Reply.CONNECTION_REFUSED)}
    text = str(Dial(aaaa=(0, (V6[0],)), a=(0, (V4[0],)), opens=opens).error)
    assert "target.example:80" in text
    assert "2001:db8::1: failed with NETWORK_UNREACHABLE" in text
    assert "192.0.2.1: failed with CONNECTION_REFUSED" in text


def test_a_reason_that_names_its_address_is_not_given_it_twice() -> None:
    opens = {V4[0]: (0, DialError("192.0.2.1:80: refused", reply=Reply.CONNECTION_REFUSED))}
    assert str(Dial(a=(0, (V4[0],)), opens=opens).error).count("192.0.2.1") == 1


def test_a_long_list_of_failures_is_shortened() -> None:
    opens = {address: failing(Reply.CONNECTION_REFUSED) for address in V4[:7]}
    text = str(Dial(a=(0, tuple(V4[:7])), opens=opens).error)
    assert str(V4[3]) in text
    assert str(V4[4]) not in text
    assert "and 3 more" in text


def test_a_failed_dial_tells_what_policy_struck_out() -> None:
    opens = {V4[0]: failing(Reply.CONNECTION_REFUSED)}
    dial = Dial(aaaa=(0, (V6[0],)), a=(0, (V4[0],)), permit=lambda it: it in V4, opens=opens)
    assert isinstance(dial.error, DialError)
    assert f"policy refuses {V6[0]}" in str(dial.error)


def test_the_total_time_limit_ends_attempts() -> None:
    opens = {V6[0]: NEVER, V4[0]: failing(Reply.CONNECTION_REFUSED, 1.0)}
    dial = Dial(aaaa=(0, (V6[0],)), a=(0, (V4[0],)), opens=opens, timeout=7)
    assert dial.clock.now == 7
    assert isinstance(dial.error, DialTimeoutError)
    assert (dial.error.stage, dial.error.reply) == (Stage.CONNECT, Reply.TTL_EXPIRED)
    assert f"no answer from {V6[0]}" in str(dial.error)
    assert f"before that {V4[0]}: failed" in str(dial.error)


def test_the_total_time_limit_ends_look_ups() -> None:
    dial = Dial(aaaa=(1, ()), a=NEVER, timeout=7)
    assert dial.clock.now == 7
    assert isinstance(dial.error, DialTimeoutError)
    assert dial.error.stage is Stage.RESOLVE
    assert "look-up of A" in str(dial.error)
    assert "AAAA" not in str(dial.error)


def test_the_time_limit_counts_look_ups_and_attempts_together() -> None:
    dial = Dial(aaaa=(6, (V6[0],)), opens={V6[0]: (2, None)}, timeout=7)
    assert isinstance(dial.error, DialTimeoutError)


def test_the_defaults_are_those_of_the_rfc() -> None:
    options = DirectOptions()  # RFC 8305 section 8: Resolution Delay 50 ms, Connection Attempt Delay 250 ms
    assert (options.resolution_delay, options.attempt_delay, options.prefer) == (0.05, 0.25, 6)
    assert options.timeout == 30


@pytest.mark.parametrize("bad", [{"timeout": 0}, {"resolution_delay": -0.1}, {"attempt_delay": 0.009}])
def test_times_that_cannot_be_used_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        DirectOptions(**bad)


def test_facts_are_told_apart_by_their_wish() -> None:
    dial = Dial(a=(0, (V4[0],)), opens={V4[0]: (0.1, None)})
    facts = [it for _, it in dial.clock.transcript if isinstance(it, Done | Failed)]
    assert len({id(fact.wish) for fact in facts}) == len(facts)


def test_a_name_of_a_thousand_silent_addresses_costs_few_attempts_at_once_and_few_in_all() -> None:
    many = tuple(IPv4Address(0xC6336400 + n) for n in range(1000))
    dial = Dial(a=(0.0, many), opens=dict.fromkeys(many, NEVER))
    assert len(dial.attempts) == MOST_ADDRESSES
    under_way, most = 0, 0
    for _, it in dial.clock.transcript:
        under_way += isinstance(it, Open)
        under_way -= isinstance(it, Cancel) and isinstance(it.wish, Open)
        most = max(most, under_way)
    assert most == MOST_AT_ONCE
    assert dial.error is not None
    assert dial.error.reply is Reply.TTL_EXPIRED


def test_a_thousand_refusing_addresses_are_not_all_asked() -> None:
    many = tuple(IPv4Address(0xC6336400 + n) for n in range(1000))
    dial = Dial(a=(0.0, many), opens={address: failing(Reply.CONNECTION_REFUSED) for address in many})
    assert len(dial.attempts) == MOST_ADDRESSES
