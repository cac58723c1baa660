"""The way of one client: handshake, command, and its end.

Until the request is there a session is a watched socket and a deadline, no task. Then one task carries out the command
(`connect`, `bind`, `associate`, `resolve`) as far as its `Judgement` allows. A tunnel leaves for the engine with its
packed facts, and the session is gone.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from tabi.addr import Address, Endpoint, Name
from tabi.errors import PeerClosedError, Reply, TabiError
from tabi.machine.base import Failed, NeedData
from tabi.machine.server import CredentialsReceived, RequestReceived, ServerMachine
from tabi.net.clock import minute_of_week
from tabi.net.driver import Begun
from tabi.net.linger import reset
from tabi.net.tasks import begin, spawn
from tabi.policy.criteria import METHOD_WORDS
from tabi.policy.verdict import Context
from tabi.relay.lane import Handover
from tabi.server.admission import ClientKey, client_key
from tabi.server.auth import Login
from tabi.server.judgement import Judgement
from tabi.server.notes import Notes
from tabi.server.outcome import CutShortError, Outcome, Tally, client_gone, why
from tabi.wire.socks5 import Command

if TYPE_CHECKING:
    from tabi.server.server import Server

__all__ = ["Commands", "Serve", "Session", "address_known", "address_of"]

_WORDS: Final = {command: command.name.lower() for command in Command}

READ_SIZE: Final = 4096  # a handshake has about 1 KiB at most; what is read beyond it travels on as early data

Serve: TypeAlias = Callable[["Session", RequestReceived], Awaitable[None]]


class Session:
    """One client connection until it is relayed or closed."""

    __slots__ = (
        "_begun", "_deadlines", "_groups", "_has_login", "_judgement", "_over", "_task", "_vouched", "arrived",
        "client", "key", "listener", "machine", "notes", "number", "server", "sock", "tally",
    )  # fmt: skip

    def __init__(
        self,
        server: "Server",
        sock: socket.socket,
        client: Endpoint,
        listener: Endpoint,
        number: int,
        arrived: Handover | None = None,
    ) -> None:
        """Begin a session; with `arrived` as what the express lane hands over (see `take_over`)."""
        age = 0.0 if arrived is None or not arrived.accepted else time.monotonic() - arrived.accepted
        self.server: Server = server
        self.sock: socket.socket = sock
        self.client: Endpoint = client
        self.listener: Endpoint = listener
        self.key: ClientKey = client_key(address_of(client))
        self.number: int = number
        self.arrived: Handover | None = arrived
        self.machine: ServerMachine = ServerMachine(server.options_for(self.listener, address_of(client)))
        self.notes: Notes = Notes(number, client, self.listener, age=age)
        self._begun: Begun | None = None
        self._vouched: bytes | None = None  # whom the lane has let in
        self.tally: Callable[[], Tally] | None = None
        self._judgement: Judgement | None = None
        self._groups: frozenset[str] = frozenset()
        self._has_login = False
        self._over = False
        self._task: asyncio.Task[None] | None = None
        self._deadlines = server.handshakes
        self._deadlines.begin(self, age)

    @property
    def judgement(self) -> Judgement:
        """What policy says about it; there is none before the request."""
        if self._judgement is None:
            raise RuntimeError("judged before the request")
        return self._judgement

    @property
    def is_over(self) -> bool:
        """Whether all that is left of it is to close in order."""
        return self._over

    @property
    def is_served(self) -> bool:
        """Whether its request is being carried out."""
        return self._judgement is not None and not self._over

    # the handshake

    def start(self) -> None:
        """Begin. The client's first bytes are often there already."""
        self._on_readable()

    def take_over(self, arrived: Handover) -> None:
        """Go on where the express lane stopped: take what it has read, and leave out what it has answered."""
        if arrived.requested:
            self.notes.mark_requested(arrived.requested)
        if arrived.outbound >= 0:
            sock = socket.socket(fileno=arrived.outbound)
            sock.setblocking(False)
            self._begun = Begun(Endpoint.from_sockaddr(arrived.target), sock)
        self._vouched = arrived.user
        self.machine.skip_sent(arrived.sent)
        if arrived.received:
            self.machine.receive_data(arrived.received)
            self._advance()
        if arrived.error and not self._over:
            self.cancel(client_gone(OSError(arrived.error, "")))
        elif not arrived.received:
            self._on_readable()

    def take_begun(self) -> Begun | None:
        """Take the connect that the express lane has begun, if it has."""
        begun, self._begun = self._begun, None
        return begun

    def _read_on(self) -> None:
        self.server.watch.read(self.sock.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = self.sock.recv(READ_SIZE)
        except BlockingIOError:
            self._read_on()
            return
        except OSError as error:
            self.cut(client_gone(error))
            return
        self.machine.receive_data(data)
        self._advance()

    def _advance(self) -> None:
        event = self.machine.next_event()
        if isinstance(event, NeedData):
            self._wait_for_more()
        elif isinstance(event, CredentialsReceived):
            self.unwatch()
            if self._vouched is not None:
                self._let_in(self._vouched)
                return
            self._task = spawn(self._authenticate(event), name=f"session {self.number} auth")
        elif isinstance(event, RequestReceived):
            self.unwatch()
            self._handshake_over()
            self._note(event)
            self._begin_command(event)
        else:
            self._failed(event)

    def _wait_for_more(self) -> None:
        try:
            self.send_all()
        except CutShortError as error:
            self.cut(error.outcome)
        else:
            self._read_on()

    async def _authenticate(self, credentials: CredentialsReceived) -> None:
        self.notes.user = credentials.username
        try:
            login = await self.server.verify(credentials.username, credentials.password, self.client)
        except Exception as error:  # noqa: BLE001  an authenticator is anybody's code; what it throws is no login
            self.server.report_bug(f"session {self.number} authentication", error)
            login = Login(ok=False, reason="the authenticator failed")
        if self._over:  # an authenticator may swallow its cancellation and answer all the same
            return
        self._task = None
        if login.ok:
            self._groups = login.groups
            self._has_login = True
            self.server.lane.teach_login(self, credentials)
            self.machine.authenticated()
        else:
            self.machine.refuse_credentials(login.reason)
        self._advance()

    def _let_in(self, user: bytes) -> None:
        """Let in a user to whom the lane has said so already, unless there is none of that name any more."""
        groups = self.server.groups(user)
        self.notes.user = user
        if groups is None:
            self.machine.refuse_credentials("there is no such user any more")
        else:
            self._groups = groups
            self._has_login = True
            self.machine.authenticated()
        self._advance()

    def _failed(self, failed: Failed) -> None:
        self._handshake_over()
        command, _, target = failed.asked.partition(" ")
        error, notes = failed.error, self.notes
        version = self.machine.version
        notes.socks = version.value if version else ""
        notes.command = command.lower()
        notes.target = target
        notes.reply = int(error.reply) if self.machine.replied else -1
        by_client = isinstance(error, PeerClosedError)
        self.end(Outcome("client" if by_client else "tabi", "fin" if by_client else why(error), note=error.text))

    def handshake_expired(self) -> None:
        """End it: the time until its request is over."""
        if (version := self.machine.version) is not None:
            self.notes.socks = version.value
        note = f"no request in time; the {self.machine.stage.value} was not complete"
        self.cancel(Outcome("tabi", "limit:handshake", note=note))

    def _handshake_over(self) -> None:
        self._deadlines.end(self)
        if not self.notes.has_request:  # else the lane has seen to it
            self.server.admission.handshake_over(self.key)
            self.notes.mark_requested()

    # the command

    def _note(self, event: RequestReceived) -> None:
        """Write down what is asked for and by whom: from here on there is something to judge."""
        notes = self.notes
        notes.socks = event.version.value
        notes.method = METHOD_WORDS[event.method]
        notes.userid = event.userid or None
        notes.command = _WORDS[event.command]
        notes.target = event.target
        context = Context(
            client=self.client,
            listener=self.listener,
            version=event.version,
            method=event.method,
            user=notes.user,
            userid=event.userid,
            groups=self._groups,
            minute_of_week=minute_of_week(),
        )
        self._judgement = Judgement(self.server.judge, self.server.limits, context, notes)

    def _begin_command(self, event: RequestReceived) -> None:
        command = self._serve(event)
        if event.command is Command.CONNECT:  # often done without a wait; the others use asyncio.timeout before theirs
            self._task = begin(command, name=self._name)
        else:
            self._task = spawn(command, name=self._name())

    def _name(self) -> str:
        return f"session {self.number}"

    async def _serve(self, event: RequestReceived) -> None:
        """Supervise the command: whatever happens, the client is answered, the end logged, nothing left open."""
        try:
            self.send_all()
            await self.server.commands[event.command](self, event)
        except asyncio.CancelledError:
            if not self._over:
                self.cut(Outcome("tabi", "shutdown"))
            raise
        except CutShortError as error:
            if error.has_reply:
                self.refuse(error.reply, error.outcome)
            else:
                self.cut(error.outcome)
        except TabiError as error:
            cause = self.judgement.cause(error)
            self.refuse(cause.reply, Outcome("tabi", why(cause), note=f"{cause.stage.value}: {cause.text}"))
        except Exception as error:  # noqa: BLE001  the supervisor: a bug of ours must not end the server
            self.server.report_bug(f"session {self.number}", error)
            self.refuse(Reply.GENERAL_FAILURE, Outcome("tabi", "bug", note=type(error).__name__))

    def watch(self, *, fin: bool = False) -> None:
        """End the session when the client resets meanwhile; with `fin` also when it closes its direction."""

        def on_hangup(was_reset: bool) -> None:
            self.cancel(client_gone(OSError(errno.ECONNRESET, "")) if was_reset else Outcome("client", "fin"))

        self.server.watch.hangup(self.sock.fileno(), on_hangup, fin=fin)

    def unwatch(self) -> None:
        """Hear nothing of the client, neither what it sends nor that it hangs up."""
        self.server.watch.forget(self.sock.fileno())

    @property
    def has_login(self) -> bool:
        """Whether a user has logged in."""
        return self._has_login

    def live_by(self, groups: Callable[[bytes | None], frozenset[str] | None]) -> bool:
        """Be who the user is now, where one has logged in; False: there is no such user any more."""
        if not self._has_login:
            return True
        known = groups(self.notes.user)
        if known is None:
            return False
        self._groups = known
        if self._judgement is not None:
            self._judgement.live_by(known)
        return True

    def forget_verdicts(self, since: str) -> None:
        """Have what was judged by old rules judged anew."""
        if self._judgement is not None:
            self._judgement.forget_verdicts(since)

    def succeed(self, bound: Endpoint, led_to: Endpoint | None = None) -> None:
        """Put the success reply out; `hand_over` or `send_all` sends it."""
        self.notes.mark_answered()
        self.machine.succeed(bound, led_to)
        self.notes.reply = int(Reply.SUCCEEDED)

    def send_all(self) -> None:
        """Send what the machine has for the client.

        Raises:
            CutShortError: the client has gone; or it does not take a few bytes, so it is not reading at all.
        """
        data = self.machine.data_to_send()
        if not data:
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:  # told once: whoever reads the socket next would see an orderly end
            raise CutShortError(client_gone(error)) from None
        if sent < len(data):
            raise CutShortError(Outcome("tabi", "failed", note="client does not read"))

    # the end

    def hand_over(self, outbound: socket.socket, address: Address | None) -> None:
        """Send the last reply and give both sockets to the engine, with the packed facts; the session is then gone.

        Args:
            outbound: the connection to the target.
            address: of the target, as it was judged; None: an upstream alone knows it.
        """
        verdict = self.judgement.settle(address)
        pending = self.machine.data_to_send()
        met = 0
        try:
            pending = pending[self.sock.send(pending) :]
        except BlockingIOError:  # the client reads nothing
            pass
        except OSError as error:  # told once: the engine passes it on behind what came early
            met = error.errno or errno.EIO
        self._over = True
        self.server.lane.teach_door(self)
        self.judgement.claims.hand_over(verdict.rule)
        self.unwatch()
        self.server.adopt(self, outbound.detach(), pending, met)

    def answer(self, bound: Endpoint, outcome: Outcome) -> None:
        """Send the success reply, and close in order: all that was asked for is in it."""
        self.succeed(bound)
        self.end(outcome)

    def refuse(self, reply: Reply, outcome: Outcome) -> None:
        """Answer with a failure reply, then close in order; after the last reply there is only the close left."""
        if self._over or self.machine.replied:
            self.cut(outcome)
            return
        self.machine.fail(reply)
        self.notes.reply = int(reply)
        self.end(outcome)

    def end(self, outcome: Outcome) -> None:
        """Send what is owed, close in order, write the line."""
        if self._begin_end():
            self.server.log_session(self, outcome)
            self.server.lingerer.close(self.sock, self.machine.data_to_send(), then=self._released)

    def cut(self, outcome: Outcome, *, abort: bool = False) -> None:
        """Close at once, with `abort` by a reset; write the line."""
        if self._begin_end():
            self.server.log_session(self, outcome)
            if abort:
                reset(self.sock)
            else:
                self.sock.close()
            self._released()

    def cancel(self, outcome: Outcome, *, abort: bool = False) -> None:
        """End from outside, wherever the session stands; with `abort` by a reset."""
        task = self._task
        self.cut(outcome, abort=abort)
        if task is not None:
            task.cancel()

    def _begin_end(self) -> bool:
        if self._over:
            return False
        self._over = True
        self._deadlines.end(self)
        self.unwatch()
        if not self.notes.has_request:
            self.server.admission.handshake_over(self.key)
        if (begun := self.take_begun()) is not None:
            reset(begun.sock)  # it may be connected by now
        if self._judgement is not None:
            self._judgement.claims.release()
        return True

    def _released(self) -> None:
        self.server.released(self)


def address_of(endpoint: Endpoint) -> Address:
    """Give the address of a peer or of a local end, which is never a name."""
    if isinstance(endpoint.host, Name):
        raise TypeError(f"{endpoint} is a name where a socket's address is meant")
    return endpoint.host


def address_known(endpoint: Endpoint) -> Address | None:
    """Give the address of a peer; None: it is a name, which an upstream has looked up."""
    return None if isinstance(endpoint.host, Name) else endpoint.host


Commands: TypeAlias = Mapping[Command, Serve]
