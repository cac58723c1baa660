"""Files that are covered and doors that are hidden, whatever is there; tried in a mount namespace of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.programs import need
from helpers.waiting import PATIENCE
from tabi.wrap.ladder import is_privileged

_PROGRAM = """\
import json, os, sys
from tabi.wrap.mounts import furnish
directory, files, masks, optional = json.loads(sys.argv[1])
furnish(files, masks, frozenset(optional))
os.chdir(directory)
print(json.dumps({os.path.relpath(os.path.join(at, name)): open(os.path.join(at, name), errors="surrogateescape").read()
                  for at, _, names in os.walk(".") for name in names}))
print(os.path.exists("/proc/self/stat"))
"""


def seen(
    directory: Path, files: dict[Path, str], *, masks: tuple[Path, ...] = (), optional: tuple[Path, ...] = ()
) -> dict[str, str]:
    """Give the files below a directory as a program sees them once others are covered."""
    told = json.dumps([str(directory), {str(path): text for path, text in files.items()},
                       [str(path) for path in masks], [str(path) for path in optional]])  # fmt: skip
    own = ["--mount"] if is_privileged() else ["--mount", "--map-root-user"]
    command = [need("unshare"), *own, sys.executable, "-W", "ignore", "-c", _PROGRAM, told]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=3 * PATIENCE)
    assert done.returncode == 0, done.stderr
    found, has_proc = done.stdout.splitlines()
    assert has_proc == "True"
    return dict(json.loads(found))


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """Make a directory with a file, a link and a directory."""
    made = tmp_path / "etc"
    (made / "deep").mkdir(parents=True)
    (made / "hosts").write_text("hosts")
    (made / "alias").symlink_to("hosts")
    (made / "deep" / "file").write_text("deep")
    return made


KEPT = {"hosts": "hosts", "alias": "hosts", "deep/file": "deep"}


def test_a_file_is_covered(etc: Path) -> None:
    (etc / "resolv.conf").write_text("old")
    assert seen(etc, {etc / "resolv.conf": "new"}) == KEPT | {"resolv.conf": "new"}
    assert (etc / "resolv.conf").read_text() == "old"


def test_bytes_that_are_no_text_stay_what_they_are(etc: Path) -> None:
    (etc / "nsswitch.conf").write_text("old")
    text = b"# caf\xe9\n".decode("utf-8", "surrogateescape")
    assert os.fsencode(seen(etc, {etc / "nsswitch.conf": text})["nsswitch.conf"]) == b"# caf\xe9\n"


def test_a_link_is_followed_to_what_is_covered(etc: Path, tmp_path: Path) -> None:
    (tmp_path / "stub").write_text("old")
    (etc / "resolv.conf").symlink_to("../stub")
    assert seen(tmp_path, {etc / "resolv.conf": "new"})["stub"] == "new"
    assert (tmp_path / "stub").read_text() == "old"


@pytest.mark.parametrize("link", [None, "/nonexistent/stub"])
def test_a_file_that_is_not_there_is_added_beside_all_that_is(etc: Path, link: str | None) -> None:
    if link is not None:
        (etc / "resolv.conf").symlink_to(link)
    assert seen(etc, {etc / "resolv.conf": "new"}) == KEPT | {"resolv.conf": "new"}
    assert not (etc / "resolv.conf").exists()


def test_an_optional_file_that_is_not_there_stays_away(etc: Path) -> None:
    path = etc / "nsswitch.conf"
    assert seen(etc, {path: "new"}, optional=(path,)) == KEPT


def test_what_is_masked_is_empty_and_a_file_below_it_is_added_all_the_same(etc: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "resolve").mkdir(parents=True)
    (tmp_path / "run" / "resolve" / "stub").write_text("old")
    (tmp_path / "run" / "secret").write_text("secret")
    (tmp_path / "link").symlink_to("run")
    (etc / "resolv.conf").symlink_to("../run/resolve/stub")
    found = seen(tmp_path, {etc / "resolv.conf": "new"}, masks=(tmp_path / "link", etc / "hosts", etc / "absent"))
    assert found == {"etc/hosts": "", "etc/alias": "", "etc/deep/file": "deep", "etc/resolv.conf": "new"}
