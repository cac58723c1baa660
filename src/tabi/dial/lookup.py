"""The addresses of a name where a proxy, or a rule, is to be asked for one at a time.

All families are asked side by side. Once one has an answer the others have `RESOLUTION_DELAY` left (RFC 8305 section
3): a name server that is silent about AAAA holds nobody up.
"""

from itertools import zip_longest

from tabi.addr import Address, Name, unmap
from tabi.dial.wishes import Cancel, Cancellable, Done, Failed, Family, Resolve, Sleep, Steps
from tabi.errors import DialTimeoutError, NameUnknownError, Stage, TabiError

__all__ = ["RESOLUTION_DELAY", "look_up"]

RESOLUTION_DELAY = 0.05  # seconds, RFC 8305 section 8


def look_up(name: Name, families: tuple[Family, ...]) -> Steps[tuple[Address, ...]]:
    """Look `name` up; give its addresses with the families taking turns, the first of `families` first.

    Raises:
        NameUnknownError: there are none.
        DialError: the look-up failed and may succeed later.
        DialTimeoutError: what is thrown in while it waits, told as being about the look-up.
    """
    lookup = _LookUp(name, families)
    try:
        yield from lookup.run()
    except DialTimeoutError as error:
        told = DialTimeoutError(f"no answer to the look-up of {name}: {error}", stage=Stage.RESOLVE)
        told.limit = error.limit
        raise told from None
    return lookup.result()


class _LookUp:
    """What was asked and what is known."""

    def __init__(self, name: Name, families: tuple[Family, ...]) -> None:
        self._name = name
        self._asked = tuple(Resolve(name, family) for family in families)
        self._found: dict[Resolve, tuple[Address, ...]] = {}
        self._failures: list[TabiError] = []

    def run(self) -> Steps[None]:
        open_: set[Cancellable] = set(self._asked)
        delay: Sleep | None = None
        fact = yield self._asked
        while True:
            if fact.wish is delay:
                break
            open_.discard(self._learn(fact))
            if not open_:
                break
            if delay is None and any(self._found.values()):
                delay = Sleep(RESOLUTION_DELAY)
                fact = yield (delay,)
            else:
                fact = yield ()
        if delay is not None:
            open_.add(delay)
        yield (*[Cancel(wish) for wish in open_], Sleep(0))

    def _learn(self, fact: Done | Failed) -> Resolve:
        assert isinstance(fact.wish, Resolve)
        if isinstance(fact, Failed):
            self._failures.append(fact.error)
        else:
            assert isinstance(fact.value, tuple)
            usable = map(unmap, fact.value)
            # blocking name servers answer 0.0.0.0 or ::, which to a proxy would be itself
            self._found[fact.wish] = tuple(one for one in usable if not one.is_unspecified)
        return fact.wish

    def result(self) -> tuple[Address, ...]:
        turns = zip_longest(*(self._found.get(wish, ()) for wish in self._asked))
        addresses = tuple(dict.fromkeys(one for turn in turns for one in turn if one is not None))
        if not addresses:
            raise self._failed()
        return addresses

    def _failed(self) -> TabiError:
        for error in self._failures:
            if error.retryable:
                return error
        text = f"no address for {self._name}"
        return NameUnknownError(f"{text}: {self._failures[0]}" if self._failures else text)
