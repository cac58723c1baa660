"""The way of one client: handshake, judgement, command, and its line in the log.

Until the request is there a session is a reader callback and a timer, no task. Then one task carries out the command
(`connect`, `bind`, `associate`, `resolve`). A tunnel leaves for the engine with its packed facts, and the session is
gone.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from tabi.addr import Address, Endpoint, Name
from tabi.errors import (
    AuthError,
    DeniedError,
    DialTimeoutError,
    PeerClosedError,
    ProtocolError,
    Reply,
    Stage,
    TabiError,
)
from tabi.machine.base import Failed, NeedData
from tabi.machine.server import CredentialsReceived, RequestReceived, ServerMachine
from tabi.net.clock import minute_of_week
from tabi.net.linger import reset
from tabi.net.tasks import spawn
from tabi.policy.criteria import METHOD_WORDS
from tabi.policy.verdict import Context, Request, Verdict
from tabi.server.admission import client_key
from tabi.server.auth import Login
from tabi.server.limits import Claims, LimitReachedError, Terms
from tabi.server.record import Facts, Outcome
from tabi.wire.socks5 import Command

if TYPE_CHECKING:
    from tabi.server.server import Server

__all__ = ["Commands", "CutShortError", "Serve", "Session", "Tally", "address_of"]

READ_SIZE: Final = 4096  # a handshake has about 1 KiB at most; what is read beyond it travels on as early data

# A literal 0.0.0.0 or :: is refused as no host to connect to; the kernel would take one that a name leads to for us.
_NOWHERE: Final = Verdict(allow=False, rule="the unspecified address is no target")

Serve: TypeAlias = Callable[["Session", RequestReceived], Awaitable[None]]


class Tally(NamedTuple):
    """What a session that is not relayed by the engine has moved so far: bytes up and down, and what was dropped."""

    up: int
    down: int
    note: str


class CutShortError(TabiError):
    """The session ends for a reason that is nobody's protocol error: the client left, or a limit was reached."""

    def __init__(self, outcome: Outcome, *, reply: Reply | None = None) -> None:
        super().__init__(outcome.why, reply=reply)
        self.outcome = outcome
        self.has_reply = reply is not None


class Session:
    """One client connection until it is relayed or closed."""

    __slots__ = (
        "_context", "_facts", "_granted", "_groups", "_has_login", "_judged_before", "_limit_reached", "_over",
        "_reading", "_task", "_timer", "claims", "client", "key", "listener", "machine", "marks", "number",
        "on_new_rules", "server", "sock", "tally", "verdict",
    )  # fmt: skip

    def __init__(self, server: "Server", sock: socket.socket, client: Endpoint, number: int) -> None:
        self.server = server
        self.sock = sock
        self.client = client
        self.listener = Endpoint.from_sockaddr(sock.getsockname())
        self.key = client_key(address_of(client))
        self.number = number
        self.machine = ServerMachine(server.options_for(self.listener, address_of(client)))
        self.marks: dict[str, float] = {"accepted": time.monotonic()}
        self._facts = Facts(number, time.time(), str(client), str(self.listener))
        self._context: Context | None = None
        self._groups: frozenset[str] = frozenset()
        self._has_login = False
        self._judged_before = False  # by rules that have been replaced since
        self._reading = False
        self._over = False
        self.claims = Claims(server.limits)
        self.verdict: Verdict | None = None  # what allows the session, as far as it is judged
        self._granted: dict[Address, Verdict] = {}  # what allows each address that was judged
        self._limit_reached: LimitReachedError | None = None  # what refused the others
        self._task: asyncio.Task[None] | None = None
        self.tally: Callable[[], Tally] | None = None
        self.on_new_rules: Callable[[], None] | None = None
        self._timer = server.loop.call_later(server.settings.time.handshake, self._handshake_expired)

    # the handshake

    def start(self) -> None:
        """Begin. The client's first bytes are often there already."""
        self._on_readable()

    def _read_on(self) -> None:
        if not self._reading:
            self._reading = True
            # by number: a selector that does not know a socket object yet makes its repr, at the cost of four calls
            self.server.loop.add_reader(self.sock.fileno(), self._on_readable)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.server.loop.remove_reader(self.sock.fileno())

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
            self._stop_reading()
            self._task = spawn(self._authenticate(event), name=f"session {self.number} auth")
        elif isinstance(event, RequestReceived):
            self._stop_reading()
            self._handshake_over()
            self._note(event)
            self._task = spawn(self._serve(event), name=f"session {self.number}")
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
        self.note(user=credentials.username)
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
            self.machine.authenticated()
        else:
            self.machine.refuse_credentials(login.reason)
        self._advance()

    def _failed(self, failed: Failed) -> None:
        self._stop_reading()
        self._handshake_over()
        command, _, target = failed.asked.partition(" ")
        error = failed.error
        version = self.machine.version
        self._facts = self._facts._replace(
            socks=version.value if version else "",
            command=command.lower(),
            target=target,
            reply=int(error.reply) if self.machine.replied else -1,
        )
        by_client = isinstance(error, PeerClosedError)
        self.end(Outcome("client" if by_client else "tabi", "fin" if by_client else _why(error), note=error.text))

    def _handshake_expired(self) -> None:
        if (version := self.machine.version) is not None:
            self.note(socks=version.value)
        note = f"no request in time; the {self.machine.stage.value} was not complete"
        self.cancel(Outcome("tabi", "limit:handshake", note=note))

    def _handshake_over(self) -> None:
        self._timer.cancel()
        self.server.admission.handshake_over(self.key)
        self.mark("requested")

    def _note(self, event: RequestReceived) -> None:
        user = self._facts.user
        self._context = Context(
            client=self.client,
            listener=self.listener,
            version=event.version,
            method=event.method,
            user=user,
            userid=event.userid,
            groups=self._groups,
            minute_of_week=minute_of_week(),
        )
        self._facts = self._facts._replace(
            socks=event.version.value,
            method=METHOD_WORDS[event.method],
            userid=event.userid or None,
            command=event.command.name.lower(),
            target=str(event.target),
        )

    # the command

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
            cause: TabiError = error
            if isinstance(error, DeniedError) and self._limit_reached is not None and not self._granted:
                cause = self._limit_reached
            self.refuse(cause.reply, Outcome("tabi", _why(cause), note=f"{cause.stage.value}: {cause.text}"))
        except Exception as error:  # noqa: BLE001  the supervisor: a bug of ours must not end the server
            self.server.report_bug(f"session {self.number}", error)
            self.refuse(Reply.GENERAL_FAILURE, Outcome("tabi", "bug", note=type(error).__name__))

    def judge(self, request: Request) -> Verdict:
        """Ask policy about `request`."""
        if self._context is None:
            raise RuntimeError("judged before the request")
        if request.address is not None and request.address.is_unspecified:
            return _NOWHERE
        return self.server.policy(request, self._context)

    def require(self, request: Request) -> Verdict:
        """Ask policy, note its verdict for the log, and raise where it refuses.

        Raises:
            DeniedError: with the reply that the rule names.
            LimitReachedError: the user or the rule has no room for the session.
        """
        verdict = self.judge(request)
        self._note_verdict(verdict)
        if not verdict.allow:
            raise DeniedError(f'refused by rule "{verdict.rule}"', reply=verdict.reply)
        self.claims.claim_user(self.user)
        if not verdict.tentative:
            self.claims.claim_rule(verdict)
        self.verdict = verdict
        return verdict

    def permits(self, event: RequestReceived) -> Callable[[Address], bool]:
        """Make the judgement over addresses that dialling asks for; it marks when the first was there."""

        any_allowed = False

        def permit(address: Address) -> bool:
            nonlocal any_allowed
            self.mark("resolved")
            verdict = self.judge(Request(event.command, event.target, address))
            if verdict.allow or not any_allowed:  # one refused address does not refuse the session
                self._note_verdict(verdict)
            any_allowed = any_allowed or verdict.allow
            return verdict.allow and self._has_room(address, verdict)

        return permit

    def _has_room(self, address: Address, verdict: Verdict) -> bool:
        """Count the session in with the rule that allows an address."""
        try:
            self.claims.claim_rule(verdict)
        except LimitReachedError as error:  # one address does not refuse the session
            self._limit_reached = error
            return False
        self._granted[address] = verdict
        return True

    def egress_to(self, address: Address) -> Address | str | None:
        """Say where a connection to an address that was judged is to come from, as the rule has it that allows it."""
        verdict = self._granted.get(address, self.verdict)
        return None if verdict is None else verdict.grants.egress

    @property
    def user(self) -> bytes | None:
        """The authenticated user."""
        return self._context.user if self._context is not None else None

    def terms(self) -> Terms:
        """Say what the session has to keep to, with what is left of its lifetime for the flow."""
        if self.verdict is None:
            raise RuntimeError("there are no terms before the request is judged")
        terms = self.server.limits.terms(self.user, self.verdict)
        if terms.lifetime:
            left = max(terms.lifetime - self.milliseconds() / 1000, 0.001)  # 0 would be for ever
            terms = terms._replace(flow=terms.flow._replace(lifetime=left))
        return terms

    def settle(self, address: Address) -> Verdict:
        """Say which verdict counts from here on: the one about the address that was taken, or about the request."""
        verdict = self._granted.get(address, self.verdict)
        if verdict is None:
            raise RuntimeError("settled before the request was judged")
        self.verdict = verdict
        self._note_verdict(verdict)
        return verdict

    def _note_verdict(self, verdict: Verdict) -> None:
        self.note(verdict="allow" if verdict.allow else "refuse", rule=verdict.rule, quiet=not verdict.grants.log)

    def mark(self, stage: str) -> None:
        """Remember when `stage` was reached first."""
        self.marks.setdefault(stage, time.monotonic())

    def note(self, **facts: object) -> None:
        """Add to the facts for the log."""
        self._facts = self._facts._replace(**facts)  # type: ignore[arg-type]  # names are Facts' own fields

    def succeed(self, bound: Endpoint, led_to: Endpoint | None = None) -> None:
        """Put the success reply out; `hand_over` or `send_all` sends it."""
        self.mark("answered")
        self.machine.succeed(bound, led_to)
        self.note(reply=int(Reply.SUCCEEDED))

    def answer(self, bound: Endpoint, outcome: Outcome) -> None:
        """Send the success reply, and close in order: all that was asked for is in it."""
        self.mark("answered")
        self.machine.succeed(bound)
        self.note(reply=int(Reply.SUCCEEDED))
        self.end(outcome)

    def hand_over(self, outbound: socket.socket, address: Address) -> None:
        """Send the last reply and give both sockets to the engine, with the packed facts; the session is then gone.

        Args:
            outbound: the connection to the target.
            address: of the target, as it was judged.
        """
        verdict = self.settle(address)
        pending = self.machine.data_to_send()
        try:
            pending = pending[self.sock.send(pending) :]
        except OSError:
            # The client reads nothing, or it is gone: a reset is told once, here, and to the engine's own attempt
            # as EPIPE. So the engine sends what came early, and passes the reset on behind it.
            pass
        self._over = True
        self.claims.hand_over(verdict.rule)
        self.server.hangups.forget(self.sock.fileno())
        self.server.adopt(self, outbound.detach(), pending)

    def facts(self) -> Facts:
        """Give the facts with the times of the stages."""
        marks, begin = self.marks, self.marks["accepted"]
        requested = marks.get("requested")
        resolved = marks.get("resolved")
        answered = marks.get("answered")
        return self._facts._replace(
            handshake=_ms(begin, requested),
            resolve=_ms(requested, resolved),
            connect=_ms(resolved or requested, answered),
        )

    # the end

    def refuse(self, reply: Reply, outcome: Outcome) -> None:
        """Answer with a failure reply, then close in order; after the last reply there is only the close left."""
        if self._over or self.machine.replied:
            self.cut(outcome)
            return
        self.machine.fail(reply)
        self.note(reply=int(reply))
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

    @property
    def is_over(self) -> bool:
        """Whether all that is left of it is to close in order."""
        return self._over

    @property
    def is_served(self) -> bool:
        """Whether its request is being carried out."""
        return self._context is not None and not self._over

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
        self._timer.cancel()
        self._stop_reading()
        if "requested" not in self.marks:
            self.server.admission.handshake_over(self.key)
        self.server.hangups.forget(self.sock.fileno())
        self.claims.release()
        return True

    def _released(self) -> None:
        self.server.released(self)

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

    def live_by(self, groups: Callable[[bytes | None], frozenset[str] | None]) -> bool:
        """Be who the user is now, where one has logged in; False: there is no such user any more."""
        if not self._has_login:
            return True
        known = groups(self._facts.user)
        if known is None:
            return False
        self._groups = known
        if self._context is not None:
            self._context = replace(self._context, groups=known)
        return True

    def confirm(self, event: RequestReceived, address: Address) -> None:
        """Judge an address again, to which the way is open now, where the rules have changed meanwhile.

        Raises:
            DeniedError: the new rules refuse it.
        """
        if not self._judged_before:
            return
        verdict = self.judge(Request(event.command, event.target, address))
        self._note_verdict(verdict)
        if not verdict.allow:
            raise DeniedError(f'refused by rule "{verdict.rule}" since the reload', reply=verdict.reply)

    def forget_verdicts(self) -> None:
        """Have what was judged by old rules judged anew."""
        self._judged_before = self._context is not None
        if self.on_new_rules is not None:
            self.on_new_rules()

    def watch(self, *, fin: bool = False) -> None:
        """End the session when the client resets meanwhile; with `fin` also when it closes its direction."""

        def on_hangup(was_reset: bool) -> None:
            self.cancel(client_gone(OSError(errno.ECONNRESET, "")) if was_reset else Outcome("client", "fin"))

        self.server.hangups.watch(self.sock.fileno(), on_hangup, fin=fin)

    def unwatch(self) -> None:
        """Take back `watch`: the socket is read again."""
        self.server.hangups.forget(self.sock.fileno())

    def milliseconds(self) -> float:
        """Age since accept."""
        return (time.monotonic() - self.marks["accepted"]) * 1000


def client_gone(error: OSError) -> Outcome:
    """Say how a client left whose socket failed with `error`."""
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return Outcome("client", "rst")
    code = error.errno or 0
    return Outcome("client", f"error:{errno.errorcode.get(code, str(code))}", note=os.strerror(code))


def _why(error: TabiError) -> str:
    if isinstance(error, LimitReachedError):
        return f"limit:{error.limit}"
    for kind, why in ((DeniedError, "policy"), (AuthError, "auth"), (ProtocolError, "protocol")):
        if isinstance(error, kind):
            return why
    if isinstance(error, DialTimeoutError):
        # what is not our own limit is the network's, unless it is a look-up's: those end by the resolver's five seconds
        limit = error.limit or ("resolve" if error.stage is Stage.RESOLVE else "")
        return f"limit:{limit}" if limit else "failed"
    return "failed"


def _ms(begin: float | None, end: float | None) -> float:
    return (end - begin) * 1000 if begin is not None and end is not None else -1.0


def address_of(endpoint: Endpoint) -> Address:
    """Give the address of a peer or of a local end, which is never a name."""
    if isinstance(endpoint.host, Name):
        raise TypeError(f"{endpoint} is a name where a socket's address is meant")
    return endpoint.host


Commands: TypeAlias = Mapping[Command, Serve]
