"""Kinds of values for the knobs of tunnels: congestion control, keepalive, sizes of buffers."""

import re
from typing import Final

from tabi.config.kinds import Kind, duration
from tabi.config.problems import WrongError

__all__ = ["congestion", "keepalive", "show_size", "size"]

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,14}")  # TCP_CA_NAME_MAX is 16 with the NUL


def _congestion(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise WrongError("names no congestion control", 'write "auto", "system", or a name such as "cubic" or "bbr"')
    return value


congestion: Kind = Kind(
    '"auto", "system", or the name of a congestion control such as "cubic", "reno", "bbr"', _congestion
)

_SILENCE: Final = duration(1, 9 * 3600)  # MAX_TCP_KEEPIDLE is 32767 s


def _keepalive(value: object) -> int:
    if value is False:
        return 0
    if value is True:
        raise WrongError("does not say after what silence", 'write it, such as "1 min", or false')
    try:
        seconds: float = _SILENCE.read(value)
    except WrongError as error:
        raise WrongError(error.complaint, f"{error.accepted}; or false") from None
    return round(seconds)


keepalive: Kind = Kind(f"false, or {_SILENCE.accepted}", _keepalive, _SILENCE.unit)

_SIZE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([kKMG]?)(i?)B")
_POWERS: Final = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3}
_LEAST, _MOST = 4096, 1 << 30
_SOME_SIZE: Final = 'write bytes, or "256 KiB", "4 MB"'


def _size(value: object) -> int:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise WrongError("is no size", _SOME_SIZE)
        amount, power, binary = match.groups()
        value = float(amount) * float(1024 if binary else 1000) ** _POWERS[power]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongError("is no size", _SOME_SIZE)
    if value != 0 and not _LEAST <= value <= _MOST:
        raise WrongError("is out of range", f"accepted are {size.accepted}")
    return int(value)


size: Kind = Kind("4 KiB to 1 GiB, or 0 for what the kernel finds right", _size, "bytes")


def show_size(count: int) -> str:
    """Show a size as it can be written: ``256 KiB``, ``1500 B``."""
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power and not count % (1 << power):
            return f"{count >> power} {unit}"
    return f"{count} B"
