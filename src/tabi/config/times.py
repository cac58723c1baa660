"""Times of the week as rules write them: ``Mon-Fri 08:00-18:00``, ``Sat``, ``22:00-06:00``."""

import re

from tabi.config.kinds import Kind
from tabi.config.problems import WrongError
from tabi.policy.spans import Spans

__all__ = ["WEEK", "minute_of_week", "week_time"]

_DAY = 24 * 60
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ACCEPTED = 'write "Mon-Fri 08:00-18:00", "Sat, Sun" or "22:00-06:00"'
_TIME = re.compile(r"(?:([A-Za-z][A-Za-z ,-]*?)\s*)?(?:(\d{1,2}:\d\d)\s*-\s*(\d{1,2}:\d\d))?")

WEEK = 7 * _DAY
"""Minutes of a week."""


def _read(value: object) -> Spans:
    match = _TIME.fullmatch(value.strip()) if isinstance(value, str) and value.strip() else None
    if match is None:
        raise WrongError("is no time of the week", _ACCEPTED)
    days, start, stop = match.groups()
    begin, end = (_minute(start), _minute(stop)) if start else (0, _DAY)
    if begin == end:
        raise WrongError("begins and ends at once", _ACCEPTED)
    if begin == _DAY:
        raise WrongError("begins at 24:00", 'write "00:00" of the next day')
    length = (end - begin) % _DAY or _DAY
    starts = [day * _DAY + begin for day in _days(days)]
    spans = [(at, at + length) for at in starts]
    return Spans((*spans, *((0, end - WEEK) for _, end in spans))) & Spans([(0, WEEK)])


week_time: Kind = Kind('times such as "Mon-Fri 08:00-18:00", "Sat, Sun", "22:00-06:00"', _read)


def minute_of_week(text: str) -> int:
    """Read ``Fri 17:05`` as minutes since Monday 00:00.

    Raises:
        WrongError: it is something else.
    """
    day, _, time = text.strip().partition(" ")
    return _day(day) * _DAY + _minute(time.strip()) % _DAY


def _days(text: str | None) -> list[int]:
    if text is None:
        return list(range(7))
    found = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        begin = _day(first.strip())
        end = _day(last.strip()) if dash else begin
        found += [day % 7 for day in range(begin, end + 1 if end >= begin else end + 8)]
    return found


def _day(text: str) -> int:
    for number, day in enumerate(_DAYS):
        if len(text) >= 3 and day.startswith(text.lower()):
            return number
    raise WrongError("names no day", "days are Mon, Tue, Wed, Thu, Fri, Sat and Sun")


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    if not (hour.isdecimal() and minute.isdecimal() and int(hour) * 60 + int(minute) <= _DAY and int(minute) < 60):
        raise WrongError("names no time of day", "times are 00:00 to 24:00")
    return int(hour) * 60 + int(minute)
