"""Paths that are to be hidden and may not be looked at."""

import errno
import os
from types import SimpleNamespace

import pytest

from tabi.wrap import mounts


@pytest.mark.parametrize(
    ("errors", "bound"),
    [
        ([0], ["/proc/nothing"]),
        ([errno.ENOTDIR, 0], ["/proc/nothing", "/proc/nobody"]),
        ([errno.EACCES], ["/proc/nothing"]),
        ([errno.ENOTDIR, errno.ENOENT], ["/proc/nothing", "/proc/nobody"]),
    ],
)
def test_what_may_not_be_looked_at_is_hidden(
    monkeypatch: pytest.MonkeyPatch, errors: list[int], bound: list[str]
) -> None:
    tried = refusing(monkeypatch, errors)
    mounts._hide("/run/user/1000/gvfs")
    assert tried == bound


def test_a_mount_that_is_forbidden_is_no_reason_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, [errno.EPERM])
    with pytest.raises(PermissionError):
        mounts._hide("/run/user/1000/gvfs")


def refusing(monkeypatch: pytest.MonkeyPatch, errors: list[int]) -> list[str]:
    """Let nothing be looked at, and mounts end as is said; the list fills with what was to be mounted."""
    tried: list[str] = []

    def bind(source: str, _target: str) -> None:
        tried.append(source)
        if code := errors[len(tried) - 1]:
            raise OSError(code, os.strerror(code))

    def stat(_path: str) -> os.stat_result:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(mounts, "_bind", bind)
    monkeypatch.setattr(mounts, "os", SimpleNamespace(stat=stat))
    return tried
