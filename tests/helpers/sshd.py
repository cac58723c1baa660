"""An sshd of our own on loopback, which lets the user who runs the tests in by a key."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.programs import need, run, running, wait_for_port
from helpers.targets import closed_port

__all__ = ["Sshd", "serving_sshd"]

PRIVILEGE_SEPARATION = Path("/run/sshd")  # sshd insists on it when root starts it; its service would have made it

SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


@dataclass
class Sshd:
    """An sshd that takes one key, for the user who runs the tests."""

    port: int
    directory: Path

    def options(self, proxy_command: str, name: str) -> list[str]:
        """What ssh, scp and sftp are to be told; nothing is read from the user's files."""
        known = self.directory / "known_hosts"
        known.write_text(f"[{name}]:{self.port} {(self.directory / 'host.pub').read_text()}")
        settings = {
            "ProxyCommand": proxy_command,
            "Port": self.port,
            "User": pwd.getpwuid(os.geteuid()).pw_name,
            "IdentityFile": self.directory / "user",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": known,
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": 30,
        }
        return ["-F", "none", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]


@contextmanager
def serving_sshd(directory: Path) -> Iterator[Sshd]:
    """Run it with its keys in `directory`; skips the test where it is not installed or lets nobody in."""
    program = need("sshd")
    port = closed_port()
    for name in ("host", "user"):
        done = run(need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", directory / name)
        assert done.returncode == 0, done.stderr
    (directory / "sshd_config").write_text(SSHD.format(port=port, directory=directory))
    log = directory / "log"
    is_ours = False
    if os.geteuid() == 0 and not PRIVILEGE_SEPARATION.exists():
        PRIVILEGE_SEPARATION.mkdir(mode=0o755)
        is_ours = True
    try:
        with running(program, "-D", "-e", "-f", directory / "sshd_config", log=log) as process:
            wait_for_port(("127.0.0.1", port), process, log)
            server = Sshd(port, directory)
            directly = run(need("ssh"), *server.options("none", "127.0.0.1"), "127.0.0.1", "true")
            if "account is locked" in (said := log.read_text()):
                pytest.skip("sshd lets nobody in: the account is locked (passwd -l)")
            assert directly.returncode == 0, said
            yield server
    finally:
        if is_ours:
            PRIVILEGE_SEPARATION.rmdir()
