"""Ways out of a network namespace that lead through the file system, and what is put before them.

A program in a namespace of its own reaches no network but the gate's. But the socket of a service has a path, and
whoever answers there has the host's network: nscd and systemd-resolved look names up, a manager of services or of
containers starts programs. Abstract sockets belong to the network namespace and need nothing here.

Only data and texts: `tabi.wrap.house` mounts them.
"""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from tabi.addr import Address, Name

__all__ = ["NAME_SERVICES", "NAME_VARIABLES", "named", "nsswitch_conf", "resolv_conf", "services"]

NAME_SERVICES = (
    "/run/nscd",  # nscd(8), nsncd: glibc asks there before it looks at nsswitch.conf
    "/var/run/nscd",
    "/run/systemd/resolve/io.systemd.Resolve",  # nss-resolve, resolvectl
    "/run/systemd/resolve/io.systemd.Resolve.Monitor",
    "/run/avahi-daemon",  # nss-mdns
    "/var/lib/sss/pipes",  # sssd has names of hosts as well
)
"""Sockets of services that look names up: put out of reach always, with links on the way followed. Their directories
are, where they have one of their own: what covers a file goes when somebody outside removes or renames that file, as a
service does that starts again (mount_namespaces(7)). That of systemd-resolved stays, for resolv.conf is often a link
into it."""

NAME_VARIABLES = ("HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS")
"""Variables by which the C library would bring back what `resolv_conf` leaves out (resolver(3)): to be taken out."""

_SERVICES = (
    "/run/dbus/system_bus_socket",  # systemd, resolved, machined, NetworkManager, PackageKit
    "/var/run/dbus/system_bus_socket",
    "/run/systemd/private",  # systemctl as root
    "/run/systemd/io.systemd.Manager",
    "/run/systemd/machine",
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
    "/run/buildkit",
    "/run/k3s",
    "/run/libvirt",
    "/run/lxd.socket",
    "/run/snapd.socket",
    "/run/snapd-snap.socket",
    "/var/lib/lxd/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/var/lib/incus/unix.socket",
    "/run/cups/cups.sock",  # prints on printers of the network
)
_SERVICES_OF_USER = (
    "bus",  # the session bus: a desktop's programs hand their arguments to an instance that runs
    "systemd/private",
    "systemd/io.systemd.Manager",
    "docker.sock",
    "docker",
    "podman",
    "containerd",
    "containerd-rootless",
    "buildkit",
    "libvirt",
    "gvfs",
    "gnupg/S.dirmngr",  # GnuPG fetches keys there
)

_BUSES = ("DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS")
_HOSTS_OF_CONTAINERS = ("DOCKER_HOST", "CONTAINER_HOST")

_HOSTS = "hosts: files dns"
_HOSTS_LINE = re.compile(r"^[ \t]*hosts[ \t]*:.*$", re.MULTILINE | re.IGNORECASE)
_MOST_SEARCHED = 6  # resolv.conf(5): older C libraries take no more


def services(uid: int, runtime: str | None = None) -> tuple[str, ...]:
    """List the sockets, and directories of sockets, of services that do for others what those cannot do themselves.

    They are put out of reach unless the user wants to keep them. Not each is there on every host.

    Args:
        uid: of the program's user.
        runtime: XDG_RUNTIME_DIR of the program, where it has one.
    """
    usual = f"/run/user/{uid}"
    own = dict.fromkeys((usual, (runtime or usual).rstrip("/")))
    return (*_SERVICES, *(f"{directory}/{name}" for directory in own for name in _SERVICES_OF_USER))


def named(environ: Mapping[str, str]) -> tuple[str, ...]:
    """List the sockets of such services that the environment names, wherever they are.

    Args:
        environ: of the program.
    """
    paths = [_parameter(one) for key in _BUSES for one in environ.get(key, "").split(";")]
    paths += [environ.get(key, "").removeprefix("unix://") for key in _HOSTS_OF_CONTAINERS]
    return tuple(path for path in paths if path.startswith("/") and path.strip("/"))


def _parameter(address: str) -> str:
    """Find the path in an address of D-Bus (its specification, "Server Addresses"); empty where there is none."""
    transport, _, parameters = address.partition(":")
    pairs = (one.partition("=") for one in parameters.split(",") if transport == "unix")
    return next((unquote(value) for key, _, value in pairs if key == "path"), "")


def resolv_conf(responders: Sequence[Address], search: Sequence[Name] = ()) -> str:
    """Write the program's resolv.conf (resolv.conf(5)).

    The host's search list is not taken over, and no name is ever completed: `tabi.wrap.zone` says why. It takes two
    lines to say so, for without a list glibc makes one of the host's own name, and musl cannot read ".".

    Args:
        responders: the name servers.
        search: a list that the user asked for; its first domain completes every name without a dot, for all are found.
    """
    servers = "".join(f"nameserver {address}\n" for address in responders)
    domains = " ".join(domain.text for domain in search[:_MOST_SEARCHED])
    return f"{servers}search {domains}\noptions ndots:1\n" if domains else f"{servers}search .\noptions ndots:0\n"


def nsswitch_conf(text: str) -> str:
    """Make the program's nsswitch.conf of the host's: users and groups as ever, hosts by /etc/hosts and DNS alone.

    Args:
        text: the host's file (nsswitch.conf(5)), empty where it has none.
    """
    if not _HOSTS_LINE.search(text):
        separator = "" if not text or text.endswith("\n") else "\n"
        return f"{text}{separator}{_HOSTS}\n"
    return _HOSTS_LINE.sub(_HOSTS, text)
