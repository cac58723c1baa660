"""Where the lines of `tabi run --trace` go that cannot be written."""

import os
import sys

import pytest

from tabi.cli.run import _tell


def test_a_reader_of_the_trace_that_has_gone_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with open(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        _tell("name")
        assert os.read(reading, 100) == b"name\n"
        os.close(reading)
        _tell("connect")  # and nothing is kept that would fail when the stream is closed


def test_a_trace_without_a_standard_error_goes_nowhere(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    _tell("name")
    monkeypatch.undo()
    assert capfd.readouterr() == ("", "")
