"""What a user reads where the kernel forbids a step."""

import errno
from pathlib import Path

import pytest

from tabi.wrap import ladder


@pytest.fixture
def sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory in the place of /proc/sys."""
    monkeypatch.setattr(ladder, "_SYSCTL", tmp_path)
    for name in ("kernel", "user"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "sudo apparmor_parser -r /etc/apparmor.d/tabi"),
    ],
)
@pytest.mark.parametrize("step", ["user namespace", "links between the namespaces"])
def test_the_remedy_is_that_of_what_forbids_it(sysctl: Path, key: str, value: str, remedy: str, step: str) -> None:
    (sysctl / key).write_text(f"{value}\n")
    assert remedy in ladder.advice(step, errno.EPERM, is_rootless=True)


def test_a_limit_of_no_namespaces_is_told_from_one_that_is_reached(sysctl: Path) -> None:
    (sysctl / "user" / "max_user_namespaces").write_text("0\n")
    told = ladder.advice("user namespace", errno.ENOSPC, is_rootless=True)
    assert "sudo sysctl -w user.max_user_namespaces=15000" in told
    (sysctl / "user" / "max_user_namespaces").write_text("100\n")
    told = ladder.advice("user namespace", errno.ENOSPC, is_rootless=True)
    assert "too many" in told


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOMEM, 0])
def test_what_is_no_prohibition_is_none_of_a_containers(sysctl: Path, code: int) -> None:
    assert ladder.advice("files of the program", code, is_rootless=True) == ""


def test_the_profile_for_apparmor_names_this_very_program(sysctl: Path) -> None:
    (sysctl / "kernel" / "apparmor_restrict_unprivileged_userns").write_text("1\n")
    told = ladder.advice("user namespace", errno.EACCES, is_rootless=True)
    assert f"profile tabi {Path('/proc/self/exe').resolve()} flags=(unconfined) {{" in told
    assert "userns," in told


def test_where_nothing_on_the_host_forbids_it_a_container_does(sysctl: Path) -> None:
    told = ladder.advice("user namespace", errno.EPERM, is_rootless=True)
    assert "docker run --security-opt seccomp=unconfined" in told


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        ("packet filter (nf_tables)", errno.EPROTONOSUPPORT, "modprobe nf_tables"),
        ("links between the namespaces", errno.EOPNOTSUPP, "modprobe veth"),
        ("network namespace", errno.ENOSPC, "user.max_net_namespaces"),
    ],
)
def test_what_the_kernel_lacks_is_named(sysctl: Path, step: str, code: int, words: str) -> None:
    assert words in ladder.advice(step, code, is_rootless=True)
