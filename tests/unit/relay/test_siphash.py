"""The marks of the compiled lane are SipHash-2-4-128: the vectors of its authors' reference implementation.

Key 00 01 … 0f; the n-th input is the first n of 00 01 02 ….
"""

import sys

import pytest

engine = pytest.importorskip("tabi.relay._engine", reason="the compiled engine is not built here")

pytestmark = pytest.mark.skipif(sys.byteorder == "big", reason="words are of the machine's own order")

VECTORS = [
    "a3817f04ba25a8e66df67214c7550293",
    "da87c1d86b99af44347659119b22fc45",
    "8177228da4a45dc7fca38bdef60affe4",
    "9c70b60c5267a94e5f33b6b02985ed51",
    "f88164c12d9c8faf7d0f6e7c7bcd5579",
    "1368875980776f8854527a07690e9627",
    "14eeca338b208613485ea0308fd7a15e",
    "a1f1ebbed8dbc153c0b84aa61ff08239",
    "3b62a9ba6258f5610f83e264f31497b4",
    "264499060ad9baabc47f8b02bb6d71ed",
]


@pytest.mark.parametrize(("size", "expected"), list(enumerate(VECTORS)))
def test_the_authors_vectors(size: int, expected: str) -> None:
    assert engine.mark(bytes(range(16)), bytes(range(size))).hex() == expected


def test_all_of_a_long_message_counts() -> None:
    long = bytes(range(256)) * 2
    marks = {engine.mark(bytes(16), long[:at] + b"!" + long[at + 1 :]) for at in range(len(long)) if long[at] != 33}
    assert len(marks) == 510
