"""The proxy under examination: what is known of it, and how to ask it in the right way."""

import contextlib
import socket
from base64 import b64encode
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, ip_network
from typing import Final, NamedTuple, Protocol, TypeVar

from tabi.addr import Address, Endpoint, Name
from tabi.client.doctor.line import Deadline, Line, Message, Record
from tabi.client.doctor.spots import ClosedSpot, DatagramSpot, Spot
from tabi.errors import DeniedError, DialError, ProtocolError, ProxyUnreachableError, Reply, dial_failure
from tabi.machine.base import Failed, NeedData
from tabi.machine.client import ClientEvent
from tabi.machine.hop import Hop, HopMachine, Scheme
from tabi.wire import socks4, socks5
from tabi.wire.address import WireHost
from tabi.wire.http import BasicCredentials, ConnectRequest, ResponseHead
from tabi.wire.socks5 import Command, Greeting, Method, MethodSelection
from tabi.wire.userpass import Credentials, Status

__all__ = ["LOCALHOST", "Expected", "Need", "Patient", "Place", "Turn", "wire_host"]

LOCALHOST: Final = Name("localhost")
_MOST_ANSWERS: Final = 4  # times the patience, for a whole examination
_HIDDEN: Final = "(the login)"


class Need(Enum):
    """What an examination cannot do without; the value says so where it is missing."""

    NEAR = "needs targets of its own on the proxy's host; run it there"
    TARGET = "needs a target: run it on the proxy's host, or name one by --target HOST:PORT"
    IPV4 = "needs an IPv4 address on the proxy's host"
    IPV6 = "needs an IPv6 address on the proxy's host"
    LOOPBACK = "needs a proxy in 127.0.0.0/8, where this host has other addresses as well"
    NAME = "needs `localhost` in /etc/hosts"
    BOTH = "needs `localhost` to have an IPv4 and an IPv6 address in /etc/hosts"
    TWO = "needs a name in /etc/hosts with two IPv4 addresses of this host"
    METHOD = "it takes no method that can be used here"
    SHAKEN = "the handshake before it does not succeed"
    TUNNEL = "CONNECT does not succeed"
    PASSWORD = "needs user and password in the URL, and a proxy that wants them"
    SOCKS4 = "it does not speak SOCKS4"
    BIND = "BIND is not offered"
    DATAGRAMS = "UDP ASSOCIATE is not offered, or no datagram comes through"


class Place(NamedTuple):
    """Where the proxy is, and what can be put beside it.

    Args:
        proxy: its address, and its port.
        near: whether the address is one of this host.
        homes: addresses for targets of our own, by IP version.
        names: what /etc/hosts of this host has for `localhost`.
        twofold: a name that it has two of our own IPv4 addresses for, and these.
        target: what the user named, None for nothing.
    """

    proxy: Endpoint
    near: bool = False
    homes: tuple[Address, ...] = ()
    names: tuple[Address, ...] = ()
    twofold: tuple[Name, tuple[Address, ...]] | None = None
    target: Endpoint | None = None


class Expected(NamedTuple):
    """A target that the user named, and the reply that is right for it."""

    endpoint: Endpoint
    reply: Reply


class Turn(NamedTuple):
    """One message of the handshake and the kind of its answer."""

    says: bytes
    hears: type[Message]


class _Closes(Protocol):
    def close(self) -> None:
        """Let go of it."""


C = TypeVar("C", bound=_Closes)


@dataclass
class Patient:
    """A proxy, and what has been found out about it so far.

    Args:
        hop: its URL.
        place: where it is.
        patience: seconds for each answer.
        expected: targets that the user named, with what is right for them.
        idle: seconds that its limits are watched for; 0 for not at all.
    """

    hop: Hop
    place: Place
    patience: float = 3.0
    expected: tuple[Expected, ...] = ()
    idle: float = 0.0
    has: set[Need] = field(default_factory=set)
    method: Method = Method.NONE
    methods: tuple[Method, ...] = ()

    def __post_init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.begin()
        place = self.place
        versions = {home.version for home in place.homes}
        named = {address.version for address in place.names}
        known = {
            Need.NEAR: place.near,
            Need.TARGET: place.near or place.target is not None,
            Need.IPV4: 4 in versions,
            Need.IPV6: 6 in versions,
            Need.LOOPBACK: place.near and place.proxy.host in ip_network("127.0.0.0/8"),
            Need.NAME: place.near and bool(place.names),
            Need.BOTH: place.near and named >= {4, 6} and versions >= {4, 6},
            Need.SHAKEN: self.hop.scheme not in (Scheme.SOCKS5, Scheme.SOCKS5H),
            Need.TWO: place.near and place.twofold is not None,
        }
        self.has |= {need for need, is_there in known.items() if is_there}

    # --- one examination

    def begin(self) -> None:
        """Begin an examination: its time runs from now."""
        self._deadline = Deadline(_MOST_ANSWERS * self.patience)
        self.record: Record = Record()

    def finish(self) -> None:
        """End it: whatever it opened is closed."""
        self._stack.close()

    # --- connections and targets; they are closed at the end of the examination

    def line(self, source: Address | None = None) -> Line:
        """Connect to the proxy.

        Raises:
            ProxyUnreachableError: it takes no connection.
        """
        proxy = self.place.proxy
        try:
            sock = socket.create_connection(
                (str(proxy.host), proxy.port),
                self._deadline.left(self.patience),
                source_address=None if source is None else (str(source), 0),
            )
        except OSError as error:
            raise ProxyUnreachableError(f"it takes no connection: {error.strerror or 'no answer'}") from None
        return self.keep(Line(sock, self._deadline, self.patience, self.record))

    def spot(self, version: int = 0) -> Spot:
        """Make a target.

        Args:
            version: of IP; 0 for that of the proxy.
        """
        return self.keep(Spot((self.home(version),), self._deadline, self.patience))

    def split_spot(self, addresses: tuple[Address, ...], shut: tuple[Address, ...] = ()) -> Spot:
        """Make a target on several addresses; on those of `shut` its port is closed."""
        return self.keep(Spot(addresses, self._deadline, self.patience, shut))

    def closed_spot(self) -> ClosedSpot:
        """Make a target that refuses."""
        return self.keep(ClosedSpot(self.home()))

    def datagram_spot(self, address: Address | None = None, port: int = 0, *, noted: bool = False) -> DatagramSpot:
        """Make a UDP socket; `noted` where it is our own end, which the evidence shows."""
        record = self.record if noted else Record()
        return self.keep(DatagramSpot(address or self.home(), port, self._deadline, self.patience, record))

    def home(self, version: int = 0) -> Address:
        """Give the address for targets of an IP version; 0 for that of the proxy."""
        wanted = version or self.place.homes[0].version
        return next(home for home in self.place.homes if home.version == wanted)

    def place_to_go(self) -> tuple[Endpoint, Spot | None]:
        """Give somewhere to connect to: a target of our own where the proxy is near, else that of the user."""
        if self.place.near:
            spot = self.spot()
            return spot.endpoint, spot
        assert self.place.target is not None
        return self.place.target, None

    def keep(self, thing: C) -> C:
        """Close it at the end of the examination."""
        self._stack.callback(thing.close)
        return thing

    # --- asking in the right way

    def ask(self, command: Command, endpoint: Endpoint, hop: Hop | None = None) -> tuple[Line, HopMachine, ClientEvent]:
        """Ask as a good client does.

        Raises:
            NoAnswerError: it does not answer.
            TabiError: it refuses, as the machine tells it.
        """
        line = self.line()
        machine = (hop or self.hop).machine(command, endpoint)
        return line, machine, self.drive(machine, line)

    def connect(self, endpoint: Endpoint) -> Line:
        """Have a tunnel; raises as `ask`."""
        return self.ask(Command.CONNECT, endpoint)[0]

    def tunnel(self) -> tuple[Line, Line]:
        """Have a tunnel to a target of our own; gives both ends, ours first."""
        spot = self.spot()
        return self.connect(spot.endpoint), spot.accept()

    def drive(self, machine: HopMachine, line: Line) -> ClientEvent:
        """Go on until the machine has an event; raises as `ask`."""
        while True:
            event = machine.next_event()
            if data := machine.data_to_send():
                line.send(data, self.shown(data))
            if isinstance(event, Failed):
                raise event.error
            if not isinstance(event, NeedData):
                return event
            machine.receive_data(line.read_some(event.need))

    def shown(self, data: bytes) -> str:
        """Say what the evidence shows of `data`: nothing where the password is in it."""
        password = self.hop.password
        if not password:
            return ""
        coded = b64encode(self.hop.username + b":" + password)
        return _HIDDEN if password in data or coded in data else ""

    # --- the handshake, message by message

    def turns(self, endpoint: Endpoint, command: Command = Command.CONNECT) -> list[Turn]:
        """Write down the whole handshake, one method offered."""
        host = wire_host(endpoint)
        if self.hop.scheme is Scheme.HTTP:
            return [Turn(ConnectRequest(host, endpoint.port, self._basic()).encode(), ResponseHead)]
        if self.hop.scheme in (Scheme.SOCKS4, Scheme.SOCKS4A):
            return [Turn(_request4(host, endpoint.port, self.hop.username), socks4.ReplyMessage)]
        request = Turn(socks5.Request(command, host, endpoint.port).encode(), socks5.ReplyMessage)
        return [*self.logging_in(), request]

    def logging_in(self) -> list[Turn]:
        """Write down what comes before a SOCKS5 request."""
        greeting = Turn(Greeting((self.method,)).encode(), MethodSelection)
        if self.method is not Method.USERPASS:
            return [greeting]
        return [greeting, Turn(self.login().encode(), Status)]

    def login(self) -> Credentials:
        """Give user and password of the URL."""
        return Credentials(self.hop.username, self.hop.password)

    def greeted(self) -> Line:
        """Have a SOCKS5 connection on which the request is next."""
        line = self.line()
        for turn in self.logging_in():
            line.send(turn.says, self.shown(turn.says))
            self.must_succeed(line.message(turn.hears))
        return line

    def must_succeed(self, answer: Message) -> None:
        """Raise unless an answer is the good one.

        Raises:
            DeniedError: reply 2.
            DialError: another refusal.
            ProtocolError: a method that was not offered.
        """
        if isinstance(answer, MethodSelection) and answer.method is not self.method:
            raise ProtocolError(f"chooses method {answer.method:#04x} where {self.method:#04x} was offered")
        if isinstance(answer, Status) and answer.status:
            raise DeniedError(f"refuses the login (status {answer.status})")
        if isinstance(answer, socks5.ReplyMessage) and answer.reply is not Reply.SUCCEEDED:
            raise _refusal(f"answers {answer.reply:d}", answer.reply)
        if isinstance(answer, socks4.ReplyMessage) and answer.code is not socks4.Code.GRANTED:
            raise DialError(f"answers {answer.code:d}")
        if isinstance(answer, ResponseHead) and not 200 <= answer.status <= 299:
            raise _refusal(f"answers {answer.status}", Reply.NOT_ALLOWED if answer.status == 403 else None)

    def _basic(self) -> BasicCredentials | None:
        return None if self.hop.is_anonymous else BasicCredentials(self.hop.username, self.hop.password)


def _refusal(text: str, reply: Reply | None) -> DeniedError | DialError:
    if reply is Reply.NOT_ALLOWED:
        return DeniedError(text)
    return dial_failure(text, reply=reply or Reply.GENERAL_FAILURE)


def wire_host(endpoint: Endpoint) -> WireHost:
    """Give the host as messages have it."""
    return endpoint.host.text.encode() if isinstance(endpoint.host, Name) else endpoint.host


def _request4(host: WireHost, port: int, userid: bytes) -> bytes:
    if isinstance(host, IPv4Address):
        return socks4.Request(Command.CONNECT, host, port, userid).encode()
    domain = host if isinstance(host, bytes) else str(host).encode()
    return socks4.Request(Command.CONNECT, socks4.MARKER, port, userid, domain).encode()

