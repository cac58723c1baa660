"""Connect without another proxy: Happy Eyeballs version 2 (RFC 8305), each address judged before it is tried.

Both families are asked side by side (section 3). The preferred family's answer starts the attempts at
once; the other's waits `resolution_delay` for it. Addresses are tried with the families interleaved
(section 4), the next one `attempt_delay` after the last or at once when one fails (section 5); the first that
connects wins.

The order within a family is the resolver's (RFC 6724 is its work). Left out: the "last resort local address
synthesis" of section 7, which is for hosts without IPv4.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from ipaddress import IPv4Address

from tabi.addr import Address, Endpoint, Name, unmap
from tabi.dial.wishes import Cancel, Close, Connection, Done, Fact, Failed, Family, Open, Plan, Resolve, Sleep, Wish
from tabi.errors import (
    ConfigError,
    DeniedError,
    DialTimeoutError,
    NameUnknownError,
    Reply,
    Side,
    Stage,
    TabiError,
    dial_failure,
)

__all__ = ["DirectOptions", "direct"]

MIN_ATTEMPT_DELAY = 0.01  # RFC 8305 section 8: "MUST NOT be less than 10 milliseconds"
MOST_ADDRESSES = 64  # of one name; its owner decides how many there are, and each one costs a descriptor and a SYN
MOST_AT_ONCE = 16  # attempts under way: with 250 ms between them each one has had four seconds
LISTED = 4  # addresses that an error lists in full; a name can have hundreds

# What a client is told when attempts failed for different reasons: the one that says most about the target.
# A reset proves that the host lives, silence that a route exists; the others may be about our network only.
_TELLING = (
    Reply.CONNECTION_REFUSED,
    Reply.TTL_EXPIRED,
    Reply.HOST_UNREACHABLE,
    Reply.NETWORK_UNREACHABLE,
    Reply.NOT_ALLOWED,
)


@dataclass(frozen=True, slots=True)
class DirectOptions:
    """Times and preference of `direct`.

    Args:
        timeout: seconds for all of it: look-ups and every address.
        resolution_delay: seconds that the other family's answer waits for the preferred one's.
        attempt_delay: seconds from one attempt to the next while none fails, at least 0.01.
        prefer: the family that is tried first.

    Raises:
        ConfigError: a time that cannot be used.
    """

    timeout: float = 30.0
    resolution_delay: float = 0.05
    attempt_delay: float = 0.25
    prefer: Family = 6

    def __post_init__(self) -> None:
        if self.timeout <= 0:
            raise ConfigError(f"timeout is {self.timeout}; it must be more than 0 seconds")
        if self.resolution_delay < 0:
            raise ConfigError(f"resolution_delay is {self.resolution_delay}; it must be 0 seconds or more")
        if self.attempt_delay < MIN_ATTEMPT_DELAY:
            least = f"{MIN_ATTEMPT_DELAY} seconds or more"
            raise ConfigError(f"attempt_delay is {self.attempt_delay}; it must be {least}")


_DEFAULTS = DirectOptions()
_RECORD: dict[Family, str] = {4: "A", 6: "AAAA"}


def direct(
    target: Endpoint, *, permit: Callable[[Address], bool], options: DirectOptions = _DEFAULTS
) -> Plan:
    """Plan a TCP connection to `target`.

    The plan cancels whatever it still has under way before it ends, so it can be a part of a longer one.

    Args:
        target: an address or a name, and the port.
        permit: judges an address as its turn comes; what it refuses is never tried.
        options: times and preference.

    Raises:
        DeniedError: there were addresses and none was permitted.
        DialError: stage RESOLVE, the name has no address or could not be looked up; stage CONNECT, no address
            took the connection: the reply is the most telling of all attempts.
        DialTimeoutError: `options.timeout` is over; the stage is what was under way.
    """
    if isinstance(target.host, Name):
        return _Race(target.host, target, permit, options).run()
    return _literal(unmap(target.host), target, permit, options)


def _literal(
    address: Address, target: Endpoint, permit: Callable[[Address], bool], options: DirectOptions
) -> Plan:
    """Plan a connection to the one address there is: no look-up, no race."""
    if not permit(address):
        raise DeniedError(f"policy refuses {address}")
    deadline, attempt = Sleep(options.timeout), Open(address, target.port)
    fact = yield deadline, attempt
    is_late = fact.wish is deadline
    # A plan is resumed by a fact only, and Cancel has none; Sleep(0) comes at once.
    yield Cancel(attempt if is_late else deadline), Sleep(0)
    if is_late:
        raise _too_late(target, options, f"no answer from {address}", Stage.CONNECT)
    if isinstance(fact, Failed):
        raise fact.error
    assert isinstance(fact.value, Connection)
    return fact.value


def _too_late(target: Endpoint, options: DirectOptions, what: str, stage: Stage) -> DialTimeoutError:
    error = DialTimeoutError(f"no connection to {target} within {options.timeout:g} s: {what}", stage=stage)
    error.limit = "connect"
    return error


class _Race:
    """One dial by name: what is known, what is under way, what is to be wished next."""

    def __init__(
        self, name: Name, target: Endpoint, permit: Callable[[Address], bool], options: DirectOptions
    ) -> None:
        self._name = name
        self._target = target
        self._permit = permit
        self._options = options
        self._deadline = Sleep(options.timeout)
        self._pause: Sleep | None = None  # the resolution delay, later the attempt delay
        self._is_connecting = False  # the wait for the preferred family is over
        self._turn: Family = options.prefer
        self._untried: dict[Family, list[Address]] = {4: [], 6: []}
        self._known: set[Address] = set()
        self._refused: list[Address] = []
        self._failures: list[tuple[Address, TabiError]] = []
        self._lookup_errors: list[TabiError] = []
        self._under_way: dict[Wish, None] = {}  # in the order of their start
        self._batch: list[Wish] = []

    def run(self) -> Plan:
        self._begin()
        while self._is_hopeful():
            fact = yield self._take_batch()
            del self._under_way[fact.wish]
            if isinstance(fact, Done) and isinstance(fact.value, Connection):
                yield from self._clean_up()
                return fact.value
            if fact.wish is self._deadline:
                error = self._timed_out()
                yield from self._clean_up()
                raise error
            self._learn(fact)
            self._advance()
        yield from self._clean_up()
        raise self._failed()

    def _begin(self) -> None:
        self._start(self._deadline)
        self._start(Resolve(self._name, self._options.prefer))
        self._start(Resolve(self._name, _other(self._options.prefer)))
        self._advance()

    def _is_hopeful(self) -> bool:
        # With neither under way nothing can be untried: `_advance` would have opened it or struck it out.
        return any(isinstance(wish, Open | Resolve) for wish in self._under_way)

    def _learn(self, fact: Fact) -> None:
        match fact:
            case Failed(wish=Open(address=address), error=error):
                self._failures.append((address, error))
                self._end_pause()  # section 5: a failure starts the next attempt at once
            case Failed(wish=Resolve(), error=error):
                self._lookup_errors.append(error)
            case Done(wish=Resolve(), value=tuple() as addresses):
                # blocking name servers answer 0.0.0.0 or ::, which to this kernel would be this very host
                self._add(tuple(address for address in addresses if not address.is_unspecified))
            case _:  # a Sleep: `_pause` is over
                self._pause = None
                self._is_connecting = True

    def _add(self, addresses: tuple[Address, ...]) -> None:
        for address in map(unmap, addresses):
            if address not in self._known and len(self._known) < MOST_ADDRESSES:
                self._known.add(address)
                self._untried[_family(address)].append(address)

    def _advance(self) -> None:
        if not self._is_connecting:
            if self._is_awaited(self._options.prefer):
                if self._has_untried() and self._pause is None:
                    self._start_pause(self._options.resolution_delay)
                return
            self._end_pause()
            self._is_connecting = True
        if self._pause is None and (address := self._next_permitted()) is not None:
            self._make_room()
            self._start(Open(address, self._target.port))
            self._turn = _other(_family(address))
            if self._has_untried() or any(isinstance(wish, Resolve) for wish in self._under_way):
                self._start_pause(self._options.attempt_delay)

    def _make_room(self) -> None:
        """Give the oldest attempt up where as many are under way as may be."""
        attempts = [wish for wish in self._under_way if isinstance(wish, Open)]
        if len(attempts) >= MOST_AT_ONCE:
            self._cancel(attempts[0])
            silent = DialTimeoutError("no answer while others were tried", side=Side.OUTBOUND)
            self._failures.append((attempts[0].address, silent))

    def _is_awaited(self, family: Family) -> bool:
        return any(isinstance(wish, Resolve) and wish.family == family for wish in self._under_way)

    def _has_untried(self) -> bool:
        return any(self._untried.values())

    def _next_permitted(self) -> Address | None:
        while self._has_untried():
            address = (self._untried[self._turn] or self._untried[_other(self._turn)]).pop(0)
            if self._permit(address):
                return address
            self._refused.append(address)
        return None

    def _start(self, wish: Wish) -> None:
        self._under_way[wish] = None
        self._batch.append(wish)

    def _start_pause(self, seconds: float) -> None:
        self._pause = Sleep(seconds)
        self._start(self._pause)

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._cancel(self._pause)
            self._pause = None

    def _cancel(self, wish: Wish) -> None:
        assert not isinstance(wish, Cancel | Close)
        del self._under_way[wish]
        self._batch.append(Cancel(wish))

    def _take_batch(self) -> tuple[Wish, ...]:
        batch, self._batch = tuple(self._batch), []
        return batch

    def _clean_up(self) -> Generator[tuple[Wish, ...], Fact, None]:
        for wish in tuple(self._under_way):
            self._cancel(wish)
        # A plan is resumed by a fact only, and Cancel has none; this one comes at once.
        self._batch.append(Sleep(0))
        yield self._take_batch()

    def _timed_out(self) -> DialTimeoutError:
        trying = [str(wish.address) for wish in self._under_way if isinstance(wish, Open)]
        asking = [_RECORD[wish.family] for wish in self._under_way if isinstance(wish, Resolve)]
        if trying:
            what = f"no answer from {_some(trying, ', ')}"
        else:
            what = f"no answer to the look-up of {' and '.join(asking)}"
        if self._failures:
            what += f"; before that {self._failure_list()}"
        return _too_late(self._target, self._options, what, Stage.CONNECT if trying else Stage.RESOLVE)

    def _failed(self) -> TabiError:
        if self._failures:
            return self._connect_error()
        if self._refused:
            return self._denied_error()
        return self._resolve_error()

    def _connect_error(self) -> TabiError:
        replies = {error.reply for _, error in self._failures}
        reply = next((reply for reply in _TELLING if reply in replies), Reply.GENERAL_FAILURE)
        text = f"no connection to {self._target}: {self._failure_list()}"
        if self._refused:
            text += f"; policy refuses {_some(self._refused, ', ')}"
        return dial_failure(text, reply=reply)

    def _denied_error(self) -> DeniedError:
        return DeniedError(f"policy refuses {_some(self._refused, ', ')}, all that {self._name} resolved to")

    def _resolve_error(self) -> TabiError:
        for error in self._lookup_errors:
            if not _is_negative(error):
                return error
        text = f"no address for {self._name}"
        if self._lookup_errors:
            text += f": {self._lookup_errors[0]}"
        return NameUnknownError(text)

    def _failure_list(self) -> str:
        return _some([_reason(address, error) for address, error in self._failures], "; ")


def _family(address: Address) -> Family:
    return 4 if isinstance(address, IPv4Address) else 6


def _other(family: Family) -> Family:
    return 4 if family == 6 else 6


def _is_negative(error: TabiError) -> bool:
    """Tell "there is no such name" from a look-up that failed and may succeed later."""
    return error.reply is Reply.HOST_UNREACHABLE and not error.retryable


def _reason(address: Address, error: TabiError) -> str:
    return str(error) if str(address) in str(error) else f"{address}: {error}"


def _some(items: list[str] | list[Address], separator: str) -> str:
    text = separator.join(map(str, items[:LISTED]))
    return f"{text} and {len(items) - LISTED} more" if len(items) > LISTED else text
