"""The units of packaging/: they parse, they say what matters, and systemd itself thinks well of them."""

import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from helpers.pages import ROOT
from helpers.programs import find, run
from tabi.cli.main import build_parser
from tabi.config.settings import DEFAULT_LISTEN

PACKAGING = ROOT / "packaging"
WORST = "20"  # exposure in tenths, of 100: 2.0 is within what systemd calls OK


def read(name: str) -> dict[str, dict[str, list[str]]]:
    """Parse a unit: its sections, and the values of each key in their order (systemd.syntax(7))."""
    sections: dict[str, dict[str, list[str]]] = {}
    here: dict[str, list[str]] | None = None
    for line in (PACKAGING / name).read_text().splitlines():
        if line.startswith("["):
            here = sections[line.strip("[]")] = defaultdict(list)
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert here is not None, line
            assert equals, line
            here[key].append(value)
    return sections


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("DynamicUser", "yes"),
        ("RuntimeDirectory", "tabi"),
        ("CapabilityBoundingSet", "CAP_NET_BIND_SERVICE"),
        ("AmbientCapabilities", "CAP_NET_BIND_SERVICE"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectControlGroups", "yes"),
        ("RestrictNamespaces", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
        ("Restart", "on-failure"),
        ("KillMode", "mixed"),
    ],
)
def test_service_says(key: str, value: str) -> None:
    assert read("tabi.service")["Service"][key] == [value]


def test_service_allows_few_system_calls() -> None:
    assert read("tabi.service")["Service"]["SystemCallFilter"][0] == "@system-service"


def test_service_has_a_watchdog_and_room_for_descriptors() -> None:
    service = read("tabi.service")["Service"]
    assert service["WatchdogSec"]
    assert int(service["LimitNOFILE"][0]) >= 1 << 20


@pytest.mark.parametrize("key", ["ExecStart", "ExecReload"])
def test_commands_of_the_service_are_tabi(key: str) -> None:
    (line,) = read("tabi.service")["Service"][key]
    program, *arguments = line.split()
    assert Path(program).name == "tabi"
    assert Path(program).is_absolute()
    build_parser().parse_args(arguments)


def test_group_of_the_service_is_made_by_sysusers() -> None:
    (group,) = read("tabi.service")["Service"]["SupplementaryGroups"]
    lines = (PACKAGING / "sysusers.conf").read_text().splitlines()
    assert [line.split() for line in lines if not line.startswith("#")] == [["g", group, "-"]]


def test_socket_listens_where_tabi_would() -> None:
    sock = read("tabi.socket")["Socket"]
    assert sock["ListenStream"] == [str(endpoint) for endpoint in DEFAULT_LISTEN]
    assert "Accept" not in sock


def systemd_analyze() -> str:
    """Give its path; skip the test without systemd, which is not installed for the sake of a test."""
    path = find("systemd-analyze")
    if path is None:
        pytest.skip("no systemd here, which would judge the units")
    return path


def test_systemd_finds_the_service_hardened() -> None:
    unit = PACKAGING / "tabi.service"
    done = run(systemd_analyze(), "security", "--offline=yes", f"--threshold={WORST}", unit)
    assert done.returncode == 0, done.stdout.decode()


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """The program is another one: it has to exist, and tabi is not installed there."""
    systemd = systemd_analyze()
    text = (PACKAGING / "tabi.service").read_text().replace("/opt/tabi/bin/tabi", "/bin/true")
    (tmp_path / "tabi.service").write_text(text)
    shutil.copy(PACKAGING / "tabi.socket", tmp_path)
    done = run(systemd, "verify", tmp_path / "tabi.service", tmp_path / "tabi.socket")
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
