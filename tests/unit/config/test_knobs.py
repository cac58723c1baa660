"""The knobs of tunnels as an administrator would write them, and what is said about what this host does not grant."""

from functools import partial
from pathlib import Path

import pytest

from tabi.config import load
from tabi.config.knobs import congestion, keepalive, show_size, size
from tabi.config.problems import ConfigurationError, WrongError
from tabi.config.tunnels import TunnelBuilder
from tabi.policy.verdict import Knobs


@pytest.mark.parametrize(
    ("written", "count"),
    [
        (4096, 4096), (0, 0), ("256 KiB", 262_144), ("256KiB", 262_144), ("4 MB", 4_000_000), ("1.5 MiB", 1_572_864),
        ("8192 B", 8192), ("1 GiB", 1 << 30), ("100 kB", 100_000),
    ],
)  # fmt: skip
def test_size_is_read(written: object, count: int) -> None:
    assert size.read(written) == count


@pytest.mark.parametrize("written", ["", "big", "256", "256 K", "1 Mbit", "4 MB/s", "-4 KiB", True, None, []])
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(WrongError, match='is no size; write bytes, or "256 KiB", "4 MB"'):
        size.read(written)


@pytest.mark.parametrize("written", [1, 4095, "4 kB", "1025 MiB", -1, float("inf"), float("nan")])
def test_size_out_of_range_is_refused_with_the_range(written: object) -> None:
    with pytest.raises(WrongError, match="is out of range; accepted are 4 KiB to 1 GiB, or 0 for what the kernel"):
        size.read(written)


@pytest.mark.parametrize(("count", "shown"), [(5000, "5000 B"), (4096, "4 KiB"), (1536 << 10, "1536 KiB")])
def test_size_is_shown_as_it_can_be_written(count: int, shown: str) -> None:
    assert show_size(count) == shown
    assert size.read(shown) == count


@pytest.mark.parametrize(("written", "seconds"), [(False, 0), (1, 1), ("5 min", 300), ("90 s", 90), ("9 h", 32_400)])
def test_keepalive_is_read(written: object, seconds: int) -> None:
    assert keepalive.read(written) == seconds


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        (True, "does not say after what silence; write it, such as \"1 min\", or false"),
        (0, "is out of range; accepted are 1 s to 9 h"),
        ("10 h", "is out of range"),
        ("off", "is no duration"),
    ],
)
def test_what_is_no_keepalive_is_refused(written: object, complaint: str) -> None:
    with pytest.raises(WrongError, match=complaint):
        keepalive.read(written)


@pytest.mark.parametrize("written", ["auto", "system", "bbr", "cubic", "no-such-one"])
def test_congestion_is_read(written: str) -> None:
    assert congestion.read(written) == written


@pytest.mark.parametrize("written", ["", "Reno", "re no", "x" * 16, "../x", 1, True, None])
def test_what_can_be_no_congestion_control_is_refused(written: object) -> None:
    with pytest.raises(WrongError, match='names no congestion control; write "auto", "system", or a name such as'):
        congestion.read(written)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Play a kernel that has reno, cubic and bbr, and grants the first two to everybody."""
    for name, text in (
        ("ipv4/tcp_allowed_congestion_control", "reno cubic\n"),
        ("ipv4/tcp_available_congestion_control", "reno cubic bbr\n"),
        ("core/wmem_max", "212992\n"),
        ("core/rmem_max", "425984\n"),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(load, "TunnelBuilder", partial(TunnelBuilder, proc=tmp_path))
    return tmp_path


def said(lines: str, proc: Path) -> list[str]:
    """Load a rule with these lines; give what is said about it."""
    text = f'[[rule]]\nallow = true\nfrom = "127.0.0.1"\n{lines}\n'
    try:
        found = load.load_text(text, "x").warnings
    except ConfigurationError as error:
        found = error.problems
    return [str(one).replace(str(proc), "PROC") for one in found]


@pytest.mark.parametrize("name", ["auto", "system", "reno", "cubic"])
def test_what_this_host_grants_passes_without_a_word(name: str, proc: Path) -> None:
    lines = f'congestion = "{name}"\nsend_buffer = "208 KiB"\nreceive_buffer = 425984'
    assert said(lines, proc) == []


def test_a_control_that_is_roots_alone_is_warned_of(proc: Path) -> None:
    assert said('congestion = "bbr"', proc) == [
        'x:4: warning: rule 1, congestion: "bbr" is not granted to ordinary users of this host; add it to '
        "PROC/ipv4/tcp_allowed_congestion_control, or take one that is: reno, cubic"
    ]


def test_a_control_that_is_not_loaded_is_warned_of(proc: Path) -> None:
    assert said('congestion = "westwood"', proc) == [
        'x:4: warning: rule 1, congestion: "westwood" is not loaded in the kernel of this host; run modprobe '
        "tcp_westwood and add it to PROC/ipv4/tcp_allowed_congestion_control, or take one that is: reno, cubic"
    ]


def test_a_control_that_no_kernel_has_is_an_error(proc: Path) -> None:
    assert said('congestion = "cubik"', proc) == [
        'x:4: rule 1, congestion: "cubik" is no congestion control; accepted here are auto, system, reno, cubic; '
        'did you mean "cubic"?'
    ]


def test_buffers_that_the_kernel_would_cut_are_warned_of(proc: Path) -> None:
    assert said('send_buffer = "1 MiB"\nreceive_buffer = "1 MiB"', proc) == [
        "x:4: warning: rule 1, send_buffer: 1 MiB is more than the kernel of this host gives; raise "
        "PROC/core/wmem_max, or write at most 208 KiB",
        "x:5: warning: rule 1, receive_buffer: 1 MiB is more than the kernel of this host gives; raise "
        "PROC/core/rmem_max, or write at most 416 KiB",
    ]


def test_the_same_is_said_of_the_servers_own_table(proc: Path) -> None:
    found = load.load_text('[tunnel]\ncongestion = "bbr"\nsend_buffer = "1 MiB"\n', "x")
    assert [one.line for one in found.warnings] == [2, 3]
    assert (found.settings.tunnel.congestion, found.settings.tunnel.send_buffer) == ("bbr", 1 << 20)


def test_where_the_kernel_says_nothing_nothing_is_said(proc: Path) -> None:
    for path in proc.rglob("*_*"):
        path.unlink()
    assert said('congestion = "bbr"\nsend_buffer = "1 MiB"', proc) == []


def test_knobs_of_a_rule_that_refuses_have_no_effect() -> None:
    with pytest.raises(ConfigurationError, match="splice: has no effect in a rule that refuses"):
        load.load_text('[[rule]]\nrefuse = "not-allowed"\nsplice = false\n', "x")


def test_a_rule_says_nothing_that_is_not_in_it() -> None:
    (rule,) = load.load_text('[[rule]]\nallow = true\nfrom = "127.0.0.1"\nkeepalive = false\n', "x").rules.rules
    assert rule.grants.knobs == Knobs(keepalive=0)
