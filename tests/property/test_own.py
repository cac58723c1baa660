"""Whatever comes in place of the kernel's answer about addresses is read to its end, or is an error."""

import contextlib
import struct

from hypothesis import given
from hypothesis import strategies as st

from tabi.net.own import read_dump

_LENGTHS = st.one_of(st.integers(0, 64), st.integers(0, 0xFFFF_FFFF))


@st.composite
def _messages(draw: st.DrawFn) -> bytes:
    """Headers that are nearly right, with attributes that are."""
    data = b""
    for _ in range(draw(st.integers(0, 4))):
        attributes = b"".join(
            struct.pack("=HH", draw(st.integers(0, 24)), draw(st.integers(0, 4))) + draw(st.binary(max_size=20))
            for _ in range(draw(st.integers(0, 3)))
        )
        kind = draw(st.sampled_from((2, 3, 20, 21, 0xFFFF)))
        data += struct.pack("=IHHII", draw(_LENGTHS), kind, draw(st.integers(0, 0xFFFF)), 1, 0) + bytes(8) + attributes
    return data


@given(st.lists(st.one_of(st.binary(max_size=64), _messages()), max_size=5))
def test_garbage_is_read_or_refused(parts: list[bytes]) -> None:
    with contextlib.suppress(OSError):
        assert all(address.version in (4, 6) for address in read_dump(parts)[0])
