"""The pages of the documentation, taken apart: what they say is run by tests."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packaging/*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """What stands between two fences: its language, its text, and the number of its first line."""

    language: str
    text: str
    line: int


class Step(NamedTuple):
    """A command of a console block, and the output that the page shows for it."""

    command: str
    output: str
    line: int


def name_of(page: Path) -> str:
    """Path of a page in the checkout."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """Take out the fenced blocks, in their order."""
    text = page.read_text(encoding="utf-8")
    return [Block(one[1], one[2], text.count("\n", 0, one.start()) + 2) for one in _FENCE.finditer(text)]


def steps(block: Block) -> list[Step]:
    """Take a console block apart: a line after ``$ `` is typed, what follows is shown."""
    found: list[Step] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            found.append(Step(line[2:], "", number))
        else:
            last = found.pop()
            found.append(last._replace(output=f"{last.output}{line}\n"))
    return found
