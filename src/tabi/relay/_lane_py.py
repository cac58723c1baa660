"""The express lane in pure Python; `tabi.relay.lane` says what it is.

Everything here belongs to the engine's thread. An arrival that is about to wait is watched with the same edge-triggered
mask as a flow, so it is registered once. Descriptors may change hands within a batch of events: an event is a hint, and
a connect is believed only when the kernel says so once more.
"""

import errno
import select
import socket
import time
from collections.abc import Callable
from socket import MSG_NOSIGNAL
from typing import Final

from tabi.relay._arrival import Arrival, Listener, Stage
from tabi.relay._flow import Flow, Side
from tabi.relay._hall import Hall
from tabi.relay._learnt import Learnt, Pass
from tabi.relay._messages import end_of_greeting, end_of_login, end_of_request4, end_of_request5, granted
from tabi.relay._relay import Relay
from tabi.relay.lane import NONE, PASSWORD, Ask, Counter, Door, Exhausted, Permit, pack_tail
from tabi.relay.options import prepare
from tabi.relay.rows import SharedRows

__all__ = ["MOST_CALLS", "Lane"]

MOST_CALLS: Final = 1024

_BATCH: Final = 16  # connections per turn and listener, so that flows get their turn
_READ_SIZE: Final = 4096  # as the control plane reads; what is behind the handshake is the target's

_ERR: Final = select.EPOLLERR
_OUT: Final = select.EPOLLOUT
_UNSURE: Final = select.EPOLLRDHUP | select.EPOLLHUP | _ERR | select.EPOLLPRI
_READABLE: Final = select.EPOLLIN | _UNSURE
_GONE: Final = _ERR | select.EPOLLHUP

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CONNECTED: Final = (0, errno.EISCONN)
_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EALREADY)

_TARGET: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_LOOPBACK: Final = ("127.", "::1")

_WITHOUT_LOGIN: Final = b"\x05\x00"  # RFC 1928 section 3
_WITH_PASSWORD: Final = b"\x05\x02"
_LOGGED_IN: Final = b"\x01\x00"  # RFC 1929 section 2


class Lane(Hall):
    """Serves arrivals until they are flows of `relay`, or calls.

    Args:
        relay: whose epoll this lives on.
        rows: what doors and permits count in.
        numbers: see `LaneEngine.open_lane`.
        patience: likewise.
        clock: seconds, monotonic.
        take_flow: gives the number of the next flow.
    """

    def __init__(
        self,
        relay: Relay,
        rows: SharedRows,
        *,
        numbers: int,
        patience: float,
        clock: Callable[[], float],
        take_flow: Callable[[], int],
    ) -> None:
        super().__init__(relay, rows, clock)
        self._patience = patience
        self._numbers = numbers
        self._take_flow = take_flow
        self._learnt = Learnt()
        self._listeners: dict[int, Listener] = {}
        self._is_paused = False

    # what the control plane has to say

    def accept_from(self, listener: Listener) -> None:
        """Begin to accept."""
        listener.enter()
        self._listeners[listener.fd] = listener
        if not self._is_paused:
            self._listen(listener)

    def stop_accepting(self, fd: int) -> None:
        """Leave a listener alone."""
        listener = self._listeners.pop(fd, None)
        if listener is not None:
            if listener.is_heard:
                self._relay.ignore(fd)
            listener.leave()

    def teach_door(self, door: Door) -> None:
        """Know a client from now on."""
        self._learnt.add_door(door)

    def teach_pass(self, door: int, message: bytes, user: bytes, until: float, failures: Counter) -> None:
        """Know a login from now on."""
        self._learnt.add_pass(door, message, Pass(user, until, failures))

    def answer(self, number: int, permit: Permit | None) -> None:
        """Go on with an arrival that asked."""
        arrival = self._arrivals.get(number)
        if arrival is None or arrival.stage is not Stage.PERMIT:
            return
        if permit is None:
            self._hand_over(arrival)
            return
        assert arrival.door is not None
        self._learnt.add_permit(arrival.door.number, arrival.user, arrival.message, permit)
        if arrival.was_hung_up:
            self._hand_over(arrival)
        else:
            arrival.resolved = self._clock()
            self._connect(arrival, permit)

    def forget(self) -> None:
        """Know nothing any more."""
        self._learnt.clear()
        self.call_in()

    def pause(self) -> None:
        """Accept nothing until `resume`."""
        if not self._is_paused:
            self._is_paused = True
            for listener in self._listeners.values():
                listener.is_heard = False
                self._relay.ignore(listener.fd)

    def resume(self) -> None:
        """Accept again."""
        if self._is_paused:
            self._is_paused = False
            for listener in list(self._listeners.values()):
                self._listen(listener)

    def close(self) -> None:
        """End; who waits is handed over."""
        for fd in list(self._listeners):
            self.stop_accepting(fd)
        self.forget()

    def abandon(self) -> None:
        """Do the same after a bug, without the relay, whatever state that is in."""
        self._known.clear()
        for listener in self._listeners.values():
            listener.leave()
        self.call_in()

    # what the epoll has to say

    def handle(self, fd: int, event: int) -> None:
        """Take an event that is about no flow."""
        arrival = self._known.get(fd)
        if arrival is None:
            if (listener := self._listeners.get(fd)) is not None and not self._is_paused:
                self._accept(listener)
        elif fd != arrival.fd:
            self._on_target(arrival, event)
        elif arrival.stage >= Stage.PERMIT:
            self._on_client_meanwhile(arrival, event)
        elif event & _ERR:
            self._hand_over(arrival)  # the error is still in the socket
        elif event & _READABLE:
            arrival.is_unsure = bool(event & _UNSURE)
            self._read(arrival)

    # accepting

    def _listen(self, listener: Listener) -> None:
        listener.is_heard = self._relay.listen(listener.fd)
        if not listener.is_heard:
            self._give_up(listener, errno.ENOMEM)

    def _give_up(self, listener: Listener, code: int) -> None:
        self.stop_accepting(listener.fd)
        self._calls.append(Exhausted(listener.fd, code))

    def _accept(self, listener: Listener) -> None:
        now = self._clock()
        for _ in range(_BATCH):
            try:
                fd, client = listener.sock._accept()  # type: ignore[attr-defined]  # what socket.accept calls
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._give_up(listener, error.errno or errno.EMFILE)
                    return
                continue  # accept(2): errors of the one connection, which has gone; the next may be fine
            self._arrive(Arrival(self._rows.number(self._numbers), fd, listener, client, now))

    def _arrive(self, arrival: Arrival) -> None:
        """Serve a new connection as far as that goes at once."""
        if arrival.listener.is_wildcard:
            arrival.local = arrival.sock.getsockname()
        self._arrivals[arrival.number] = arrival
        door = self._learnt.door(arrival.listener.fd, arrival.local[0], arrival.client[0])
        if door is None or not self._enter(door.counters):
            self._hand_over(arrival)
            return
        arrival.door = door
        arrival.moment = time.time()
        arrival.deadline = arrival.accepted + self._patience
        self._read(arrival)
        if arrival.number not in self._arrivals:
            return
        if not self._watch(arrival, arrival.fd):
            self._hand_over(arrival)
        elif arrival.stage < Stage.PERMIT:
            self._wheel.arm(arrival, arrival.deadline, arrival.accepted)

    # the handshake

    def _read(self, arrival: Arrival) -> None:
        try:
            data = arrival.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._hand_over(arrival, error=error.errno or errno.EIO)
            return
        if not data:  # the end, which is there to be read once more
            self._hand_over(arrival)
            return
        if len(data) == _READ_SIZE:
            arrival.is_unsure = True
        arrival.received = arrival.received + data if arrival.received else data
        self._advance(arrival)

    def _advance(self, arrival: Arrival) -> None:
        """Take the messages that are there. Half of one, or one that is not plain, is the control plane's."""
        door = arrival.door
        assert door is not None
        size = len(arrival.received)
        if arrival.stage is Stage.GREETING:
            if arrival.received[0] == 4:
                if not door.socks4 or not self._take_request(arrival, door, end_of_request4(arrival.received)):
                    self._hand_over(arrival)
                return
            if not self._greet(arrival, door):
                self._hand_over(arrival)
                return
        if arrival.stage is Stage.LOGIN and arrival.at < size and not self._log_in(arrival, door):
            self._hand_over(arrival)
            return
        if (
            arrival.stage is Stage.REQUEST
            and arrival.at < size
            and not self._take_request(arrival, door, end_of_request5(arrival.received, arrival.at))
        ):
            self._hand_over(arrival)

    def _greet(self, arrival: Arrival, door: Door) -> bool:
        """Choose the strongest of the methods that both sides have (RFC 1928 section 3)."""
        data = arrival.received
        end = end_of_greeting(data) if data[0] == 5 else 0
        offered = data[2:end]
        if door.methods & PASSWORD and 2 in offered:
            answer, stage = _WITH_PASSWORD, Stage.LOGIN
        elif door.methods & NONE and 0 in offered:
            answer, stage = _WITHOUT_LOGIN, Stage.REQUEST
        else:
            return False
        if not self._send(arrival, answer):
            return True
        arrival.at = end
        arrival.stage = stage
        return True

    def _log_in(self, arrival: Arrival, door: Door) -> bool:
        """Let in who is known (RFC 1929)."""
        end = end_of_login(arrival.received, arrival.at)
        if not end:
            return False
        known = self._learnt.login(door.number, arrival.received[arrival.at : end], self._clock())
        if known is None or self._rows.total(known.failures.row) != known.failures.limit:
            return False
        arrival.user = known.user
        if self._send(arrival, _LOGGED_IN):
            arrival.at = end
            arrival.stage = Stage.REQUEST
        return True

    def _send(self, arrival: Arrival, data: bytes) -> bool:
        """Send a few bytes; False: the client does not take them, and has been handed over."""
        error = 0
        try:
            arrival.sent += (sent := arrival.sock.send(data, MSG_NOSIGNAL))
            if sent == len(data):
                return True
        except BlockingIOError:
            pass
        except OSError as failure:
            error = failure.errno or errno.EIO
        self._hand_over(arrival, error=error)
        return False

    # the request

    def _take_request(self, arrival: Arrival, door: Door, end: int) -> bool:
        """Find out what comes of a request; False: it is not whole, or not plain."""
        if not end:
            return False
        message = arrival.received[arrival.at : end]
        now = arrival.requested = self._clock()
        self._rows.leave(door.counters[2][0])
        arrival.message = message
        arrival.at = end
        permit = self._learnt.permit(door.number, arrival.user, message, now)
        if permit is None:
            arrival.stage = Stage.PERMIT
            self._calls.append(Ask(arrival.number, door.number, arrival.user, message))
        else:
            arrival.resolved = now
            self._connect(arrival, permit)
        return True

    # the target

    def _connect(self, arrival: Arrival, permit: Permit) -> None:
        if not self._enter(permit.counters):
            self._hand_over(arrival)
            return
        arrival.permit = permit
        try:
            sock = socket.SocketType(socket.AF_INET6 if ":" in permit.address else socket.AF_INET, _TARGET)
            prepare(sock)
        except OSError:  # no descriptors: the control plane finds out, and says so
            self._hand_over(arrival)
            return
        code = sock.connect_ex((permit.address, permit.port))
        if code in _UNDER_WAY and permit.address.startswith(_LOOPBACK):
            # The handshake took place within the first call; asking again spares a turn.
            code = sock.connect_ex((permit.address, permit.port))
        if code not in _CONNECTED and code not in _UNDER_WAY:
            sock.close()
            self._hand_over(arrival)
            return
        arrival.outbound = sock
        if not (self._watch(arrival, arrival.fd) and self._watch(arrival, sock.fileno())):
            self._hand_over(arrival)
        elif code in _CONNECTED:
            self._connected(arrival, permit, sock)
        else:
            self._await_target(arrival, permit)

    def _await_target(self, arrival: Arrival, permit: Permit) -> None:
        arrival.stage = Stage.TARGET
        arrival.deadline = arrival.resolved + permit.patience
        self._wheel.arm(arrival, arrival.deadline, arrival.resolved)

    def _on_target(self, arrival: Arrival, event: int) -> None:
        sock, permit = arrival.outbound, arrival.permit
        assert sock is not None
        assert permit is not None
        if event & _ERR:
            self._hand_over(arrival)  # the error is still in the socket
        elif event & _OUT:
            code = sock.connect_ex((permit.address, permit.port))
            if code in _CONNECTED:
                arrival.is_unsure = True
                self._connected(arrival, permit, sock)
            elif code not in _UNDER_WAY:  # it has failed since the event was made, and the error is told
                self._known.pop(sock.fileno(), None)
                sock.close()
                arrival.outbound = None
                self._hand_over(arrival)

    def _on_client_meanwhile(self, arrival: Arrival, event: int) -> None:
        """Note what the client does while it has to wait. Its bytes stay in the kernel, as does its error."""
        if event & _READABLE:
            arrival.is_unsure = True
        if event & _GONE:
            if arrival.stage is Stage.PERMIT:
                arrival.was_hung_up = True
            else:
                self._hand_over(arrival)

    def _connected(self, arrival: Arrival, permit: Permit, sock: socket.SocketType) -> None:
        """Answer, and relay."""
        host, port, *_ = sock.getsockname()
        if port == permit.port and host == permit.address:  # both SYNs were ours (RFC 9293 section 3.5)
            self._hand_over(arrival)
            return
        if permit.shows_target:
            host, port = permit.address, permit.port
        answer = granted(arrival.received[0], host, port)
        error = 0
        try:
            answer = answer[arrival.sock.send(answer, MSG_NOSIGNAL) :]
        except BlockingIOError:
            pass
        except OSError as failure:  # told once: the flow passes it on behind what came early
            error = failure.errno or errno.EIO
        flow = self._flow(arrival, permit, sock, answer)
        flow.inbound.err = error
        self._leave(arrival)
        self._relay.begin(flow, is_sure=not arrival.is_unsure)

    def _flow(self, arrival: Arrival, permit: Permit, sock: socket.SocketType, unsent: bytes) -> Flow:
        now = self._clock()
        inbound = Side(arrival.fd, unsent, arrival.sock)
        outbound = Side(sock.fileno(), arrival.received[arrival.at :], sock)
        limits = permit.limits
        if limits.lifetime:
            left = max(limits.lifetime - (now - arrival.accepted), 0.001)  # 0 would be for ever
            limits = limits._replace(lifetime=left)
        flow = Flow(self._take_flow(), inbound, outbound, limits, permit.facts, now)
        flow.tuning = permit.tuning
        flow.tail = pack_tail(
            arrival.number,
            arrival.moment,
            arrival.client[1],
            (arrival.requested - arrival.accepted) * 1000,
            (arrival.resolved - arrival.requested) * 1000,
            (now - arrival.resolved) * 1000,
        )
        return flow
