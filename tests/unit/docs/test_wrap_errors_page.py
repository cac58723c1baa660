"""docs/reference/wrap-errors.md says what `tabi.wrap.answers` does."""

import errno
import re
from pathlib import Path

import pytest

from tabi.errors import Reply, dial_failure
from tabi.wrap.answers import EXPIRED, NO_HOST, NO_NETWORK, PROHIBITED, REFUSED, SILENCE, Answer, answer_to

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "wrap-errors.md"
LINES = [line for line in PAGE.read_text().splitlines() if line.startswith("|")][2:]  # below the head
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES]
PACKETS = {REFUSED: "TCP reset", SILENCE: "none"}


def packet_of(answer: Answer) -> str:
    return PACKETS.get(answer, answer.name)


@pytest.mark.parametrize("answer", [REFUSED, NO_NETWORK, NO_HOST, PROHIBITED, EXPIRED, SILENCE], ids=packet_of)
def test_page_has_the_errors_of_each_packet(answer: Answer) -> None:
    rows = [row for row in ROWS if row[2] == packet_of(answer)]
    assert rows
    expected = [errno.errorcode[answer.errno4], errno.errorcode[answer.errno6]]
    assert [row[3:] for row in rows] == [expected] * len(rows)


@pytest.mark.parametrize("reply", [reply for reply in Reply if 0 < reply <= 8], ids=str)
def test_page_has_the_packet_of_each_reply(reply: Reply) -> None:
    (row,) = [row for row in ROWS if str(int(reply)) in re.findall(r"\d+", row[1])]
    assert row[2] == packet_of(answer_to(dial_failure("", reply=reply)))
