"""Values as an administrator would write them, and what is said about those that do not fit."""

import pytest

from tabi.config import kinds
from tabi.config.hosts import SetName, host_entry, network_entry
from tabi.config.problems import WrongError
from tabi.config.times import WEEK, minute_of_week, week_time
from tabi.policy.spans import Spans

DAY = 24 * 60


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (30, 30), (0.5, 0.5), ("30", 30), ("30s", 30), ("30 s", 30), ("5 min", 300), ("5m", 300), ("1h 30min", 5400),
        ("2 days", 172800), ("250 ms", 0.25), (" 1 minute ", 60), ("1.5 h", 5400),
    ],
)  # fmt: skip
def test_duration_is_read(written: object, seconds: float) -> None:
    assert kinds.duration(0.1, 1e9).read(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "s", "five", "5 parsecs", "-5", "5 min ago", True, None, [], "1e3", "5 s,", "½ h"]
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(WrongError, match="is no duration"):
        kinds.duration(0.1, 1e9).read(written)


@pytest.mark.parametrize("written", [0, -1, 121, "3 min", float("nan"), float("inf")])
def test_duration_out_of_range_is_refused_with_the_range(written: object) -> None:
    with pytest.raises(WrongError, match=r"is out of range; accepted are 0.1 s to 2 min"):
        kinds.duration(0.1, 120).read(written)


@pytest.mark.parametrize(
    ("written", "bytes_per_second"),
    [
        (1000, 1000), ("1000", 1000), ("10 MB/s", 10_000_000), ("10MB/s", 10_000_000), ("512 KiB/s", 524_288),
        ("100 Mbit/s", 12_500_000), ("1.5 GB/s", 1_500_000_000), ("8kbit / s", 1000), ("1 MiB", 1_048_576),
    ],
)  # fmt: skip
def test_bandwidth_is_read(written: object, bytes_per_second: int) -> None:
    assert kinds.bandwidth.read(written) == bytes_per_second


def test_bandwidth_that_may_be_bits_or_bytes_is_asked_about() -> None:
    with pytest.raises(WrongError, match='may mean bits or bytes; write "MB/s" for bytes or "Mbit/s" for bits'):
        kinds.bandwidth.read("10 Mb/s")


@pytest.mark.parametrize("written", ["fast", "10 MB/min", "", 0, -5, float("nan"), True, None, "10 PB/s"])
def test_what_is_no_bandwidth_is_refused(written: object) -> None:
    with pytest.raises(WrongError):
        kinds.bandwidth.read(written)


@pytest.mark.parametrize(("written", "per_second"), [(5, 5), (0.5, 0.5), ("5/s", 5), ("30/min", 0.5), ("36 / h", 0.01)])
def test_rate_is_read(written: object, per_second: float) -> None:
    assert kinds.rate.read(written) == pytest.approx(per_second)


@pytest.mark.parametrize("written", ["5", "5/day", 0, -1, True, float("nan"), None])
def test_what_is_no_rate_is_refused(written: object) -> None:
    with pytest.raises(WrongError):
        kinds.rate.read(written)


@pytest.mark.parametrize(
    ("written", "span"), [(80, (80, 80)), ("80", (80, 80)), ("8000-8999", (8000, 8999)), ("1 - 2", (1, 2)), (0, (0, 0))]
)
def test_port_is_read(written: object, span: tuple[int, int]) -> None:
    assert kinds.port.read(written) == span


@pytest.mark.parametrize(
    "written", ["80-", "-80", "90-80", "65536", 65536, -1, "http", "80-90-100", "", True, 80.0, "٨٠"]
)
def test_what_is_no_port_is_refused(written: object) -> None:
    with pytest.raises(WrongError):
        kinds.port.read(written)


@pytest.mark.parametrize("written", ["localhost:1080", "127.0.0.1", ":1080", "::1:1080", 1080, "0.0.0.0:99999"])
def test_listener_is_an_address_with_a_port(written: object) -> None:
    with pytest.raises(WrongError):
        kinds.endpoint.read(written)


def week(*spans: tuple[int, int]) -> Spans:
    return Spans(spans)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Mon 08:00-18:00", week((480, 1080))),
        ("mon-tue 8:00-9:00", week((480, 540), (DAY + 480, DAY + 540))),
        ("Sat, Sun", week((5 * DAY, 7 * DAY))),
        ("Fri-Mon", week((4 * DAY, 7 * DAY), (0, DAY))),
        ("Wed 00:00-24:00", week((2 * DAY, 3 * DAY))),
        ("Wed 22:00-00:00", week((2 * DAY + 1320, 3 * DAY))),
        ("Mon 22:00-06:00", week((1320, DAY + 360))),
        ("Sun 22:00-06:00", week((6 * DAY + 1320, WEEK), (0, 360))),
        ("00:00-24:00", week((0, WEEK))),
        ("monday", week((0, DAY))),
    ],
)
def test_time_of_the_week_is_read(written: str, expected: Spans) -> None:
    assert week_time.read(written) == expected


@pytest.mark.parametrize(
    "written",
    ["", "noon", "Mo", "Mon 25:00-26:00", "Mon 08:60-09:00", "8-9", "Mon 24:00-06:00", "Mon 9:00-9:00", 5, "Mon-"],
)
def test_what_is_no_time_is_refused(written: object) -> None:
    with pytest.raises(WrongError):
        week_time.read(written)


def test_minute_of_week_counts_from_monday() -> None:
    assert minute_of_week("Mon 00:00") == 0
    assert minute_of_week("Fri 17:05") == 4 * DAY + 17 * 60 + 5


@pytest.mark.parametrize(
    ("written", "entry"),
    [
        ("example.org", "example.org"),
        ("Example.ORG.", "example.org"),
        ("*.Example.org", "*.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("mail?.*", "mail?.*"),
        ("_dmarc.example", "_dmarc.example"),
        ("localhost", "localhost"),
        ("*", "*"),
        ("@ads", SetName("ads")),
    ],
)
def test_host_entry_is_in_normal_form(written: str, entry: object) -> None:
    assert host_entry(written) == entry


@pytest.mark.parametrize(
    ("written", "network"),
    [
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("203.0.113.9", "203.0.113.9/32"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("[2001:db8::1]", "2001:db8::1/128"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("::ffff:10.3.0.0/112", "10.3.0.0/16"),
        ("\uff11\uff10.0.0.1", "10.0.0.1/32"),
    ],
)
def test_network_entry_is_read(written: str, network: str) -> None:
    assert str(host_entry(written)) == network


@pytest.mark.parametrize(
    "written",
    [
        "", "http://example.org/", "example.org:80", ".example.org", "10.*", "127.1", "0x7f.1", "10.0.0.1/8",
        "10.0.0.0/33", "a b", "-x.example", "x..example", "@", "@a b", "[::1]:80", "*.exam ple", "fe80::1%eth0",
        "ß.example", 5, "x" * 300,
    ],
)  # fmt: skip
def test_what_names_no_host_is_refused(written: object) -> None:
    with pytest.raises(WrongError):
        host_entry(written)


@pytest.mark.parametrize("written", ["example.org", "*", "10.0.0.1/8", "@", "", 5])
def test_clients_are_networks_only(written: object) -> None:
    with pytest.raises(WrongError):
        network_entry(written)
