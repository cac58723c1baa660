"""The time of the week, which rules can ask for; policy itself has no clock."""

import time

__all__ = ["minute_of_week"]

_DAY = 24 * 60


def minute_of_week(moment: float | None = None) -> int:
    """Give the minutes since Monday 00:00 in local time.

    Args:
        moment: seconds since the epoch; None: now.
    """
    local = time.localtime(moment)
    return local.tm_wday * _DAY + local.tm_hour * 60 + local.tm_min
