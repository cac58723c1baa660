"""What this host allows: whether we are root enough, and where a step is refused, what would help.

Nothing is guessed beforehand: the house is really tried, and only what the kernel has refused is explained.
"""

import errno
import os
from pathlib import Path
from typing import Final

from tabi.wrap.linux import Capability, cap_effective

__all__ = ["APPARMOR_PROFILE", "advice", "is_privileged"]

_NEEDED: Final = 1 << Capability.SYS_ADMIN | 1 << Capability.NET_ADMIN
_SYSCTL: Final = Path("/proc/sys")

_FORBIDDEN: Final = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EUSERS)  # also by filters of system calls

APPARMOR_PROFILE: Final = """\
abi <abi/4.0>,
include <tunables/global>
profile tabi {path} flags=(unconfined) {{
  userns,
}}
"""

_CONTAINER: Final = """\
In a container its runtime has to allow it: docker run --security-opt seccomp=unconfined --security-opt \
apparmor=unconfined, podman run --security-opt seccomp=unconfined, or with root inside --cap-add SYS_ADMIN,NET_ADMIN."""

_NO_NAMESPACES: Final = """\
This host allows no user namespaces. To allow them:
  sudo sysctl -w user.max_user_namespaces=15000"""


def is_privileged() -> bool:
    """Say whether namespaces can be made without a user namespace."""
    return os.geteuid() == 0 and cap_effective() & _NEEDED == _NEEDED


def advice(step: str, code: int, *, is_rootless: bool) -> str:
    """Say what would help where a step was refused; empty where there is nothing to be said.

    Args:
        step: as the keeper names it.
        code: the errno.
        is_rootless: there was to be a user namespace.
    """
    if step.startswith("packet filter"):
        return (
            "The kernel's nf_tables are wanted (CONFIG_NF_TABLES with the inet family).\n"
            "Where they are a module: sudo modprobe nf_tables"
        )
    if step.startswith("links between"):
        if code == errno.EOPNOTSUPP:
            return "The kernel's veth links are wanted (CONFIG_VETH).\nWhere they are a module: sudo modprobe veth"
        return _of_user_namespaces() if is_rootless and code in _FORBIDDEN else ""
    if code == errno.ENOSPC:
        if _read("user/max_user_namespaces") == "0":  # ENOSPC is what such a limit is told by
            return _NO_NAMESPACES
        return "There are too many namespaces already: raise user.max_user_namespaces, user.max_net_namespaces"
    if not is_rootless:
        return "Root without a security module in the way is wanted."
    return _of_user_namespaces() if code in _FORBIDDEN else ""


def _of_user_namespaces() -> str:
    """Look for what forbids them."""
    if _read("kernel/unprivileged_userns_clone") == "0":
        return (
            "This kernel forbids user namespaces to ordinary users. To allow them:\n"
            "  sudo sysctl -w kernel.unprivileged_userns_clone=1"
        )
    if _read("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return _of_apparmor()
    return _CONTAINER


def _of_apparmor() -> str:
    path = os.path.realpath("/proc/self/exe")
    profile = "".join(f"  {line}\n" for line in APPARMOR_PROFILE.format(path=path).splitlines())
    return (
        "AppArmor forbids user namespaces to programs without a profile. Write this to /etc/apparmor.d/tabi\n"
        f"{profile}"
        "and load it: sudo apparmor_parser -r /etc/apparmor.d/tabi\n"
        f"It allows them to all that {path} runs; for all programs: "
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    )


def _read(key: str) -> str:
    try:
        return (_SYSCTL / key).read_text().strip()
    except OSError:
        return ""
