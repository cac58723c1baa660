"""Set files: names and networks, one in each line, ``#`` begins a comment."""

import os
from collections.abc import Iterator
from pathlib import Path

from tabi.config.hosts import HostEntry, SetName, host_entry
from tabi.config.problems import Problem, WrongError, shown
from tabi.policy.criteria import Hosts
from tabi.policy.names import NameSet
from tabi.policy.networks import Network, NetworkSet, PrivateNetworks

__all__ = ["make_hosts", "read_set"]

MAX_PROBLEMS = 20
"""Errors told of one file: a picture in the place of a list would have thousands."""


def make_hosts(entries: Iterator[HostEntry], private: PrivateNetworks) -> Hosts:
    """Sort entries into names and networks; they are taken one by one, so that no list of them is ever held."""
    networks: list[Network] = []

    def names() -> Iterator[str]:
        for entry in entries:
            if isinstance(entry, str):
                yield entry
            elif not isinstance(entry, SetName):
                networks.append(entry)

    known = NameSet(names())
    return Hosts(names=known, networks=NetworkSet(networks), inside=private.part_of(networks))


def read_set(path: Path, private: PrivateNetworks) -> tuple[Hosts, list[Problem]]:
    """Read a file.

    Args:
        path: of the file.
        private: what ``@private`` is.

    Returns:
        what it holds, and what is wrong with it.

    Raises:
        OSError: it cannot be read.
    """
    problems: list[Problem] = []
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        hosts = make_hosts(_entries(lines, os.fspath(path), problems), private)
    return hosts, problems


def _entries(lines: Iterator[str], file: str, problems: list[Problem]) -> Iterator[HostEntry]:
    for number, line in enumerate(lines, 1):
        bare = line.partition("#")[0].strip() if "#" in line else line.strip()
        if not bare:
            continue
        try:
            entry = host_entry(bare)
            if isinstance(entry, SetName):
                raise WrongError("is a set", "a set file holds names and networks only")
        except WrongError as error:
            if len(problems) == MAX_PROBLEMS:
                problems.append(Problem(file=file, line=number, complaint="more errors follow"))
            if len(problems) <= MAX_PROBLEMS:
                accepted = error.accepted.removesuffix(' or "@set"')
                problems.append(
                    Problem(file=file, line=number, found=shown(bare), complaint=error.complaint, accepted=accepted)
                )
            continue
        yield entry
