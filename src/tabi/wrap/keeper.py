"""The keeper: a small process that makes both namespaces, lives in the gate, and looks after the program.

It is started by `tabi.wrap.house` and obeys one socket. The program is its child. Where that socket ends, tabi has
died: then the gate is closed for good, and the keeper stays only to see the program's end.
"""

import os
import pickle
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from tabi.wrap import linux, wiring
from tabi.wrap.messages import Ended, Made, Make, Plan, Ready, Refused, Signal, Start, receive, send
from tabi.wrap.mounts import furnish
from tabi.wrap.program import OURS, become

__all__ = ["KEPT_FROM", "main"]

KEPT_FROM: Final = frozenset({
    signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE,
})  # fmt: skip
"""Signals that mean the program, or tabi, and not the keeper, though a terminal sends them to all."""

_BACKLOG: Final = 1024
_RESOLV: Final = "/etc/resolv.conf"
_NSSWITCH: Final = "/etc/nsswitch.conf"


class _RefusedError(Exception):
    """A step that the kernel refused."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


@contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _RefusedError(Refused(name, error.errno or 0, error.strerror or str(error))) from None


def main() -> NoReturn:
    """Run; the arguments are the numbers of the socket and of the file with the plan."""
    control, plan = (int(text) for text in sys.argv[1:])
    ignored = frozenset(number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN)
    ignored -= {signal.SIGPIPE, signal.SIGXFSZ}  # which Python ignores, and nobody else does
    for number in KEPT_FROM:
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(control, False)
    with open(plan, "rb") as stream:
        what: Plan = pickle.load(stream)
    signal.pthread_sigmask(signal.SIG_SETMASK, what.mask)
    sock = socket.socket(fileno=control)
    try:
        try:
            _Keeper(sock, what, ignored).run()
        except _RefusedError as error:
            send(sock, error.refused)
    except ConnectionError:  # tabi has died before all was made; what was made goes with us
        pass
    sys.exit(0)


class _Keeper:
    def __init__(self, control: socket.socket, plan: Plan, ignored: frozenset[int]) -> None:
        self._control = control
        self._plan = plan
        self._ignored = ignored
        self._pid = 0
        self._inside: socket.socket | None = None  # the other end of the program that waits

    def run(self) -> None:
        """Make everything, then serve until the program has ended."""
        if self._plan.is_rootless:
            with _step("user namespace"):
                _enter_user_namespace()
        linux.forbid_tracing()  # not earlier: it gives our files in /proc to root
        with _step("network namespace"):
            linux.unshare(linux.CLONE_NEWNET)
        self._fork()
        self._hear_from_inside()
        with _step("links between the namespaces"):
            wiring.wire_gate(self._pid)
        with _step("packet filter (nf_tables)"):
            tproxy = wiring.filter_gate()
        with _step("sockets of the gate"):
            sockets = wiring.open_sockets(tproxy=tproxy)
        self._tell_inside()
        self._hear_from_inside()
        send(self._control, Ready(self._pid, tproxy, tuple(sockets)), [one.fileno() for one in sockets.values()])
        for one in sockets.values():
            one.close()
        self._serve()

    def _fork(self) -> None:
        self._inside, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            self._inside.close()
            self._control.close()
            _live_inside(theirs, self._plan, self._ignored)
        theirs.close()

    def _tell_inside(self) -> None:
        assert self._inside is not None
        try:
            self._inside.send(b"go")
        except OSError:  # it has died, which its end will tell
            pass

    def _hear_from_inside(self) -> None:
        """Wait until the program's process has made its own part."""
        assert self._inside is not None
        said = self._inside.recv(1 << 16)
        refused: Refused | None = pickle.loads(said) if said else Refused("the program's process", 0, "it has died")
        if refused is not None:
            raise _RefusedError(refused)

    def _serve(self) -> None:
        pidfd = os.pidfd_open(self._pid)
        poll = select.poll()
        for fd in (self._control.fileno(), pidfd):
            poll.register(fd, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if pidfd in ready:
                _, status = os.waitpid(self._pid, 0)
                try:
                    send(self._control, Ended(status))
                except OSError:  # tabi has died
                    pass
                return
            if not self._obey():
                poll.unregister(self._control.fileno())
                self._abandon()

    def _obey(self) -> bool:
        """Take one order; say whether there may be more."""
        order, _ = receive(self._control)
        match order:
            case None:
                return False
            case Make():
                self._make(order)
            case Start() if self._inside is not None:
                self._tell_inside()
                self._inside.close()
                self._inside = None
            case Signal(number=number):
                os.kill(self._pid, number)  # our child, and not waited for yet: the id is its own
        return True

    def _abandon(self) -> None:
        """Leave the program without a way; one that has not begun never does, for its socket ends."""
        wiring.close_gate()
        if self._inside is not None:
            self._inside.close()
            self._inside = None

    def _make(self, order: Make) -> None:
        try:
            sock = wiring.transparent(order.family, order.kind)
        except OSError as error:
            send(self._control, Made(error.errno or 0))
            return
        with sock:
            try:
                if order.address is not None:
                    sock.bind(order.address)
                if order.is_listening:
                    sock.listen(_BACKLOG)
            except OSError as error:
                send(self._control, Made(error.errno or 0))
            else:
                send(self._control, Made(0), [sock.fileno()])


def _enter_user_namespace() -> None:
    """Become all-mighty over what is made from here on, and nothing else, as the user that we are."""
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")  # without which gid_map may not be written, user_namespaces(7)
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _live_inside(outside: socket.socket, plan: Plan, ignored: frozenset[int]) -> NoReturn:
    """Be the process that becomes the program."""
    try:
        try:
            with _step("namespaces of the program"):
                linux.unshare(linux.CLONE_NEWNET | linux.CLONE_NEWNS)
            outside.send(pickle.dumps(None))
            if not outside.recv(16):
                os._exit(OURS)
            with _step("links of the program"):
                wiring.wire_program()
            with _step("files of the program"):
                furnish(_files(plan), plan.program.masks, frozenset({_NSSWITCH}))
            if os.stat("/proc/self/ns/net").st_ino == plan.outside:
                raise _RefusedError(Refused("network namespace", 0, "it is the one that we come from"))
        except _RefusedError as error:
            outside.send(pickle.dumps(error.refused))
            os._exit(OURS)
        outside.send(pickle.dumps(None))
        if not outside.recv(16):  # tabi has died or does not want to any more
            os._exit(OURS)
        become(plan.program, is_rootless=plan.is_rootless, ignored=ignored, mask=plan.mask)
    except BaseException:  # noqa: BLE001  a bug, told here, for never may there be two keepers
        traceback.print_exc()
    finally:
        os._exit(OURS)


def _files(plan: Plan) -> dict[str, str]:
    program = plan.program
    files = {_RESOLV: program.resolv}
    if program.nsswitch:
        files[_NSSWITCH] = program.nsswitch
    return files


if __name__ == "__main__":
    main()
