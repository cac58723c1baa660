"""Sets of domain names: exact, by suffix, by glob."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from tabi.addr import Name

__all__ = ["Chains", "Globs", "NameSet", "glob", "keys_of", "plain_key"]

_GRAM: Final = 3  # characters in a row that patterns are filed by


class NameSet:
    """Names exact, by suffix (``*.example.org``: all below it, not itself) and by glob; cheap for 100,000 of them.

    Args:
        patterns: in normal form: lower case A-labels without a trailing dot.
    """

    __slots__ = ("_plain", "globs")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._plain: set[str] = set()
        globs: dict[str, re.Pattern[str]] = {}
        for pattern in patterns:
            key = plain_key(pattern)
            if key is None:
                globs[pattern] = re.compile(glob(pattern))
            else:
                self._plain.add(key)
        self.globs: Globs = Globs(globs)
        """Those that are neither exact nor suffixes."""

    def __len__(self) -> int:
        """Patterns that were put in."""
        return len(self._plain) + len(self.globs.patterns)

    def __iter__(self) -> Iterator[str]:
        yield from (f"*{key}" if key.startswith(".") else key for key in self._plain)
        yield from self.globs.patterns

    def __contains__(self, name: Name) -> bool:
        """Say whether a name is meant."""
        return self.has(name.text)

    def has(self, name: str) -> bool:
        """Say whether the text of a name is meant."""
        return not self._plain.isdisjoint(keys_of(name)) or any(self.globs.matching(name))

    def covers(self, pattern: str) -> bool:
        """Say whether all that `pattern` means is in the set as well; False where that is not certain."""
        if pattern in self.globs.patterns or "*" in self.globs.patterns:
            return True
        key = plain_key(pattern)
        if key is None:
            return False
        return not self._plain.isdisjoint(keys_of(key)) if key.startswith(".") else self.has(key)


class Globs:
    """Patterns with wildcards, each filed by three characters that a name must have in a row, the rarest.

    Of those that have no three in a row, which would be tried on many names, the ones without ``?`` are sought together
    (`Chains`); the others are filed by what they have.

    Args:
        patterns: as written, and compiled.
    """

    __slots__ = ("_chains", "_filed", "_sizes", "patterns")

    def __init__(self, patterns: Mapping[str, re.Pattern[str]]) -> None:
        self.patterns: Mapping[str, re.Pattern[str]] = patterns
        bare = {pattern for pattern in patterns if "?" not in pattern and max(map(len, pattern.split("*"))) < _GRAM}
        self._chains = Chains(bare)
        grams = {pattern: _longest_grams(pattern) for pattern in patterns if pattern not in bare}
        counts = Counter(gram for known in grams.values() for gram in known)
        self._filed: dict[str, list[str]] = {}
        for pattern, known in grams.items():
            rarest = min(known, key=lambda gram: (counts[gram], gram), default="")
            self._filed.setdefault(rarest, []).append(pattern)
        self._sizes = {len(gram) for gram in self._filed} - {0}

    def __reduce__(self) -> tuple[type["Globs"], tuple[Mapping[str, re.Pattern[str]]]]:
        """Leave the tree out of a pickle, which takes none that is deep: it is made anew where the patterns arrive."""
        return Globs, (self.patterns,)

    def matching(self, name: str) -> Iterator[str]:
        """Give the patterns that mean a name."""
        if not self.patterns:
            return
        yield from self._chains.matching(name)
        for gram in self._filed.keys() & {"", *(gram for size in self._sizes for gram in _grams(name, size))}:
            for pattern in self._filed[gram]:
                if self.patterns[pattern].fullmatch(name):
                    yield pattern


class Chains:
    """Patterns of text and ``*`` alone, as a tree of the texts in their order: what several begin with is sought once.

    Each text is taken at its first chance behind the one before, which leaves most room for those that follow. So a
    name costs at most one search for each text of the tree.

    Args:
        patterns: each has a star, and no ``?``.
    """

    __slots__ = ("_heads", "_sizes")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._heads: dict[str, _Link] = {}
        for pattern in patterns:
            head, *between, tail = re.sub(r"\*+", "*", pattern).split("*")
            link = self._heads.setdefault(head, _Link())
            for text in between:
                link = link.following.setdefault(text, _Link())
            link.ends.append((tail, pattern))
        self._sizes = {len(head) for head in self._heads}

    def matching(self, name: str) -> Iterator[str]:
        """Give the patterns that mean a name."""
        begun = ((self._heads.get(name[:size]), size) for size in self._sizes if size <= len(name))
        found = [(link, at) for link, at in begun if link is not None]
        while found:
            link, at = found.pop()
            for tail, pattern in link.ends:
                if name.endswith(tail, at):
                    yield pattern
            for text, following in link.following.items():
                place = name.find(text, at)
                if place >= 0:
                    found.append((following, place + len(text)))


class _Link:
    """Where a text of patterns has been found: the texts that follow, and the ends of patterns that have no more."""

    __slots__ = ("ends", "following")

    def __init__(self) -> None:
        self.following: dict[str, _Link] = {}
        self.ends: list[tuple[str, str]] = []


def _longest_grams(pattern: str) -> set[str]:
    """Give what a name must have in a row: all threes of the pattern, if there is none all pairs, and so on."""
    runs = re.split(r"[*?]", pattern)
    size = min(max(map(len, runs)), _GRAM)
    return {gram for run in runs for gram in _grams(run, size) if size}


def _grams(text: str, size: int) -> Iterator[str]:
    return (text[place : place + size] for place in range(len(text) - size + 1))


def keys_of(name: str) -> list[str]:
    """Give the keys that mean a name (see `plain_key`): it, and each suffix with its dot."""
    keys = [name]
    dot = name.find(".")
    while dot >= 0:
        keys.append(name[dot:])
        dot = name.find(".", dot + 1)
    return keys


def plain_key(pattern: str) -> str | None:
    """Give what an exact name or a suffix is filed under: itself, from the dot on. None: it is a glob."""
    rest = pattern[1:] if pattern.startswith("*.") else pattern
    return None if "*" in rest or "?" in rest else rest


def glob(pattern: str) -> str:
    """Turn ``*`` (any text) and ``?`` (one character) into a regular expression without backtracking traps."""
    parts = [re.escape(part).replace(r"\?", ".") for part in re.sub(r"\*+", "*", pattern).split("*")]
    # each gap is matched at its first chance and never tried again (atomic groups, Python 3.11)
    inner = "".join(f"(?>.*?{part})" for part in parts[1:-1])
    tail = f".*{parts[-1]}" if len(parts) > 1 else ""
    return parts[0] + inner + tail
