"""Texts and paths for the program's own view of the file system."""

from ipaddress import ip_address

import pytest

from tabi.addr import Name
from tabi.wrap import side_doors

RESPONDERS = (ip_address("198.18.0.1"), ip_address("fd00:5ec::1"))


def test_resolv_conf_completes_no_name() -> None:
    text = "nameserver 198.18.0.1\nnameserver fd00:5ec::1\nsearch .\noptions ndots:0\n"
    assert side_doors.resolv_conf(RESPONDERS) == text


def test_resolv_conf_with_a_list_that_the_user_wants() -> None:
    search = [Name("corp.test"), *(Name(f"n{number}.test") for number in range(9))]
    text = side_doors.resolv_conf(RESPONDERS[:1], search)
    assert text == "nameserver 198.18.0.1\nsearch corp.test n0.test n1.test n2.test n3.test n4.test\noptions ndots:1\n"


@pytest.mark.parametrize(
    ("host", "program"),
    [
        ("", "hosts: files dns\n"),
        ("passwd: files", "passwd: files\nhosts: files dns\n"),
        (
            "passwd: files systemd\n  Hosts :\tfiles mdns4 [NOTFOUND=return] resolve dns # x\nnetworks: files\n",
            "passwd: files systemd\nhosts: files dns\nnetworks: files\n",
        ),
        ("#hosts: nis\nhosts: nis\nhosts: wins", "#hosts: nis\nhosts: files dns\nhosts: files dns"),
    ],
)
def test_nsswitch_conf_changes_hosts_alone(host: str, program: str) -> None:
    assert side_doors.nsswitch_conf(host) == program


def test_services_of_the_user_lie_where_the_session_has_them() -> None:
    assert "/run/user/1000/bus" in side_doors.services(1000)
    assert "/run/docker.sock" in side_doors.services(1000)
    elsewhere = side_doors.services(1000, "/tmp/runtime/")
    assert {"/run/user/1000/bus", "/tmp/runtime/bus", "/tmp/runtime/systemd/private"} <= set(elsewhere)
    assert len(elsewhere) == len(set(elsewhere))


def test_every_path_is_absolute_and_plain() -> None:
    for path in (*side_doors.NAME_SERVICES, *side_doors.services(0)):
        assert path.startswith("/")
        assert "//" not in path
        assert not path.endswith("/")


@pytest.mark.parametrize(
    ("environ", "paths"),
    [
        ({}, ()),
        ({"DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/a%20bus,guid=1f;unix:guid=2,path=/run/b"},
         ("/run/a bus", "/run/b")),
        ({"DBUS_SYSTEM_BUS_ADDRESS": "unix:abstract=/tmp/x;tcp:host=a,path=/b;autolaunch:"}, ()),
        ({"DOCKER_HOST": "unix:///home/me/docker.sock", "CONTAINER_HOST": "ssh://host/run/podman.sock"},
         ("/home/me/docker.sock",)),
        ({"DOCKER_HOST": "unix:///", "CONTAINER_HOST": "unix://relative"}, ()),
    ],
)  # fmt: skip
def test_services_that_the_environment_names(environ: dict[str, str], paths: tuple[str, ...]) -> None:
    assert side_doors.named(environ) == paths
