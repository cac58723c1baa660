"""Proxies that others wrote, each run on loopback for one test; skips the test where the program is not installed."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.programs import need, running, wait_for_port
from helpers.sshd import serving_sshd
from helpers.targets import closed_port

__all__ = ["dante", "microsocks", "ssh", "tinyproxy"]

DANTE = """
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: none
user.privileged: {user}
user.unprivileged: {user}
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks block {{ from: 0.0.0.0/0 to: 127.0.0.3/32 }}
socks pass {{ from: 0.0.0.0/0 to: 127.0.0.0/8 command: connect bind udpassociate bindreply udpreply }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/32 command: udpassociate }}
"""


@contextmanager
def dante(directory: Path) -> Iterator[str]:
    """Run Dante; yields HOST:PORT."""
    port = closed_port()
    (directory / "sockd.conf").write_text(DANTE.format(port=port, user=pwd.getpwuid(os.geteuid()).pw_name))
    log = directory / "log"
    with running(need("danted"), "-f", directory / "sockd.conf", "-p", directory / "pid", log=log) as process:
        wait_for_port(("127.0.0.1", port), process, log)
        yield f"127.0.0.1:{port}"


@contextmanager
def microsocks(directory: Path, *options: str) -> Iterator[str]:
    """Run microsocks; yields HOST:PORT."""
    port, log = closed_port(), directory / "log"
    command = (need("microsocks"), "-i", "127.0.0.1", "-p", str(port), *options)
    with running(*command, log=log) as process:
        wait_for_port(("127.0.0.1", port), process, log)
        yield f"127.0.0.1:{port}"


@contextmanager
def tinyproxy(directory: Path) -> Iterator[str]:
    """Run tinyproxy; yields HOST:PORT."""
    port, log = closed_port(), directory / "log"
    (directory / "conf").write_text(f"Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\n")
    with running(need("tinyproxy"), "-d", "-c", directory / "conf", log=log) as process:
        wait_for_port(("127.0.0.1", port), process, log)
        yield f"127.0.0.1:{port}"


@contextmanager
def ssh(directory: Path) -> Iterator[str]:
    """Run ssh -D through an sshd of our own; yields HOST:PORT."""
    port, log = closed_port(), directory / "ssh.log"
    with serving_sshd(directory) as server:
        options = server.options("none", "127.0.0.1")
        with running(need("ssh"), *options, "-N", "-D", f"127.0.0.1:{port}", "127.0.0.1", log=log) as process:
            wait_for_port(("127.0.0.1", port), process, log)
            yield f"127.0.0.1:{port}"
