"""A flood of failures leaves a trickle of lines, and none is lost without being counted."""

from tabi.server.limiter import BURST, MAX_CLIENTS, RATE, RefusalLimiter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_the_rest_is_counted_until_there_is_room() -> None:
    clock = Clock()
    limiter = RefusalLimiter(clock)
    assert [limiter.pass_through(b"a") for _ in range(int(BURST))] == [0] * int(BURST)
    assert [limiter.pass_through(b"a") for _ in range(50)] == [None] * 50
    clock.now += 1 / RATE
    assert limiter.pass_through(b"a") == 50
    assert limiter.pass_through(b"a") is None


def test_one_client_does_not_silence_another() -> None:
    limiter = RefusalLimiter(Clock())
    while limiter.pass_through(b"a") is not None:
        pass
    assert limiter.pass_through(b"b") == 0


def test_the_table_is_bounded() -> None:
    limiter = RefusalLimiter(Clock())
    for number in range(2 * MAX_CLIENTS):
        limiter.pass_through(number.to_bytes(4, "big"))
    assert len(limiter) <= MAX_CLIENTS


def test_the_table_is_bounded_when_everybody_is_held_back() -> None:
    limiter = RefusalLimiter(Clock())
    for number in range(MAX_CLIENTS + 50):
        while limiter.pass_through(number.to_bytes(4, "big")) is not None:
            pass
    assert len(limiter) <= MAX_CLIENTS


def test_what_was_held_back_is_told_once_when_the_flood_is_over() -> None:
    limiter = RefusalLimiter(Clock())
    for _ in range(int(BURST) + 7):
        limiter.pass_through(b"a")
    assert limiter.held_back() == [(b"a", 7)]
    assert limiter.held_back() == []


def test_clients_that_are_forgotten_are_told_of_together() -> None:
    limiter = RefusalLimiter(Clock())
    for _ in range(int(BURST) + 3):
        limiter.pass_through(b"flooder")
    for number in range(MAX_CLIENTS):
        limiter.pass_through(number.to_bytes(4, "big"))
    assert limiter.held_back() == [(b"", 3)]
