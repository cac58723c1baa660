"""The one table of keys: what a configuration may hold. Validation, hints, the reference and `tabi config` read it."""

from dataclasses import dataclass
from typing import Final, get_args

from tabi.config import kinds, knobs
from tabi.config.hosts import host, network
from tabi.config.kinds import Kind, bandwidth, count, dials, duration, flag, rate, text, trust, word
from tabi.config.proxies import proxy
from tabi.config.times import week_time
from tabi.errors import Reply
from tabi.policy.criteria import COMMAND_WORDS
from tabi.policy.verdict import LogLevel
from tabi.wire.socks5 import Method
from tabi.wire.version import Version

__all__ = ["AUTH_WORDS", "REPLY_WORDS", "TABLES", "Key", "Table"]

AUTH_WORDS: Final = {
    "none": frozenset({Method.NONE}),
    "password": frozenset({Method.USERPASS}),
    "any": frozenset({Method.NONE, Method.USERPASS}),
}
"""What a listener or a network of clients is offered."""

REPLY_WORDS: Final = {reply.name.lower().replace("_", "-"): reply for reply in Reply if reply is not Reply.SUCCEEDED}
"""What a rule may answer with (RFC 1928 section 6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key.

    Args:
        name: within its table.
        kind: what may be written.
        help: one or two sentences for the reference.
        default: what holds where the key is left out, as TOML or in words.
        example: a value as TOML.
        many: one value or an array of them.
        negatable: entries may begin with ``!``.
        required: has to be there.
        secret: the value is never shown.
    """

    name: str
    kind: Kind
    help: str
    default: str = ""
    example: str = ""
    many: bool = False
    negatable: bool = False
    required: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the file.

    Args:
        name: its header; empty for the keys before any.
        help: for the reference.
        keys: what it holds.
        array: written ``[[name]]``, any number of times.
        short: the key that an element given as plain text stands for.
    """

    name: str
    help: str
    keys: tuple[Key, ...]
    array: bool = False
    short: str = ""

    def key(self, name: str) -> Key | None:
        """Give a key by its name."""
        return next((key for key in self.keys if key.name == name), None)

    def path(self, key: Key) -> str:
        """Give the key as people call it."""
        return f"{self.name}.{key.name}" if self.name else key.name


_YEARS = 10_000 * 86400.0  # seconds: a limit that nobody will meet

_LIMITS = (
    Key(
        name="sessions",
        kind=count(1, 1 << 30),
        default="no limit",
        example="100",
        help="Sessions at once. One more is refused, and logged as `limit:user-sessions` or `limit:rule-sessions`.",
    ),
    Key(
        name="rate",
        kind=rate,
        default="no limit",
        example='"5/s"',
        help="New sessions per second. More are refused, and logged as `limit:user-rate` or `limit:rule-rate`.",
    ),
    Key(
        name="bandwidth",
        kind=bandwidth,
        default="no limit",
        example='"10 MB/s"',
        help="Both directions together, shared fairly between the sessions.",
    ),
    Key(
        name="lifetime",
        kind=duration(1, _YEARS),
        default="no limit",
        example='"8 h"',
        help="How long one session may last. Its end is logged as `limit:user-lifetime` or `limit:rule-lifetime`.",
    ),
)
"""For the whole server, all workers together."""

_TOP = Table(
    name="",
    help="Keys before any table.",
    keys=(
        Key(
            name="auth",
            kind=word(AUTH_WORDS),
            default="password where there are users, else none",
            example='"none"',
            help="What clients are asked for when they connect: `any` takes a password from those that offer one. "
            "A listener may have its own, and `[[client]]` may replace it for a network.",
        ),
        Key(
            name="trusted",
            kind=network,
            many=True,
            default="none",
            example='["10.0.0.0/8"]',
            help="Networks in which many clients share an address: failed logins close single users out, "
            "never the address.",
        ),
        Key(
            name="workers",
            kind=count(1, 1024),
            default="one for each core",
            example="4",
            help="Processes that serve clients.",
        ),
        Key(
            name="run_as",
            kind=text("user name", 32),
            default="who started it",
            example='"nobody"',
            help="User of this host that the workers become, when the server is started by root.",
        ),
        Key(
            name="tor_resolve",
            kind=flag,
            default="false",
            example="true",
            help="Take Tor's commands RESOLVE and RESOLVE_PTR, by which clients look names up.",
        ),
    ),
)

_LISTEN = Table(
    name="listen",
    array=True,
    short="address",
    help='Where to listen: an array of `"ADDRESS:PORT"`, or of tables such as '
    '`{ address = "0.0.0.0:1080", auth = "password" }`. '
    'Default: `["127.0.0.1:1080", "[::1]:1080"]`, which only programs on this host can reach.',
    keys=(
        Key(
            name="address",
            kind=kinds.endpoint,
            required=True,
            example='"0.0.0.0:1080"',
            help="Address and port; 0.0.0.0 and [::] are all addresses of this host.",
        ),
        Key(
            name="auth",
            kind=word(AUTH_WORDS),
            default="that of the file",
            example='"password"',
            help="What clients that come in here are asked for.",
        ),
    ),
)

_TIME = Table(
    name="time",
    help="How long each stage may take. A session that one of them ends is logged as `limit:NAME`.",
    keys=(
        Key(
            name="handshake",
            kind=duration(0.1, 600),
            default='"10 s"',
            help="From accepting a connection to its whole request.",
        ),
        Key(
            name="connect", kind=duration(0.1, 120), default='"30 s"', help="To reach the target, by all its addresses."
        ),
        Key(
            name="resolve",
            kind=duration(0.1, 60),
            default='"5 s"',
            help="To look a name up, each family on its own; the time is part of `connect`.",
        ),
        Key(name="bind", kind=duration(0.1, 3600), default='"2 min"', help="BIND's wait for its peer."),
        Key(
            name="idle",
            kind=duration(1, _YEARS, none=True),
            default="0",
            help="A tunnel without a byte in either direction. Dead peers are found without it, by keepalive.",
        ),
        Key(
            name="half_open",
            kind=duration(1, _YEARS, none=True),
            default='"10 min"',
            help="A tunnel with one direction closed, without a byte in the other.",
        ),
        Key(name="udp_idle", kind=duration(120, _YEARS), default='"5 min"', help="An association without a datagram."),
        Key(name="drain", kind=duration(0, 3600), default='"2 s"', help="What running sessions are given at shutdown."),
    ),
)

_CAP = Table(
    name="cap",
    help="How many connections at once; one more is closed, and logged as `cap:NAME`. "
    "A client is an IPv4 address or an IPv6 /64.",
    keys=(
        Key(name="connections", kind=count(1, 1 << 30), default="65536", help="In total."),
        Key(name="per_client", kind=count(1, 1 << 30), default="16384", help="Of one client."),
        Key(
            name="handshakes_per_client",
            kind=count(1, 1 << 30),
            default="1024",
            help="Of one client, whose request is not there yet.",
        ),
    ),
)

_BIND = Table(
    name="bind",
    help="Where BIND listens for its peer.",
    keys=(
        Key(
            name="address",
            kind=kinds.address,
            default="the source address of the route to the peer",
            example='"192.0.2.1"',
            help="Local address; it serves peers of its own family.",
        ),
        Key(
            name="advertise",
            kind=kinds.address,
            default="the local address",
            example='"203.0.113.1"',
            help="Address that clients are told instead, for a server behind NAT.",
        ),
        Key(name="ports", kind=kinds.port_range, default="any", example='"40000-40999"', help="Ports to listen on."),
    ),
)

_UDP = Table(
    name="udp",
    help="Where UDP associations live.",
    keys=(
        Key(
            name="address",
            kind=kinds.address,
            default="that of the client's TCP connection",
            example='"192.0.2.1"',
            help="Local address towards clients; it serves those of its own family.",
        ),
        Key(
            name="advertise",
            kind=kinds.address,
            default="the local address",
            example='"203.0.113.1"',
            help="Address that clients are told instead, for a server behind NAT.",
        ),
        Key(name="ports", kind=kinds.port_range, default="any", example='"41000-41999"', help="Ports towards clients."),
        Key(
            name="shared_port",
            kind=count(1, 0xFFFF),
            default="none",
            example="1080",
            help="One port for all associations, for containers that can publish only one. Excludes `ports`. There is "
            "one worker then: whose a datagram is, is told by its source alone, so one process has to see them all.",
        ),
        Key(
            name="egress4",
            kind=kinds.address4,
            default="the kernel chooses",
            example='"192.0.2.1"',
            help="Local IPv4 address towards targets.",
        ),
        Key(
            name="egress6",
            kind=kinds.address6,
            default="the kernel chooses",
            example='"2001:db8::1"',
            help="Local IPv6 address towards targets.",
        ),
    ),
)


def _knobs(*, of_rule: bool) -> tuple[Key, ...]:
    """Give the keys by which a rule, or the server for all that say nothing, has the sockets of tunnels used."""

    def default(key: str, value: str) -> str:
        return f"tunnel.{key}" if of_rule else value

    return (
        Key(
            name="congestion",
            kind=knobs.congestion,
            default=default("congestion", '"auto"'),
            example='"system"',
            help="Congestion control of what tabi sends, towards client and target. `auto` leaves it to the system, "
            "but where that takes one that paces (bbr), a bulky stream to this host or into a private network goes on "
            "with cubic or reno. `system` is the system's always. A name is set on both sockets; ordinary users may "
            "have those in `/proc/sys/net/ipv4/tcp_allowed_congestion_control`, and what the kernel does not grant "
            "leaves the system's, with a warning when the file is read.",
        ),
        Key(
            name="keepalive",
            kind=knobs.keepalive,
            default=default("keepalive", '"1 min"'),
            example="false",
            help="Silence after which the kernel asks a peer whether it lives; after five questions without an answer, "
            "10 s apart, the session ends. With `false` it does not ask: a peer that has gone without a word is "
            "found by `idle` alone, or when something is sent to it.",
        ),
        Key(
            name="send_buffer",
            kind=knobs.size,
            default=default("send_buffer", "0"),
            example='"128 KiB"',
            help="What the kernel keeps for each socket until its peer has acknowledged it, in place of a size that "
            "grows as needed. The kernel doubles the number, for its own part, and gives no more than twice "
            "`/proc/sys/net/core/wmem_max`.",
        ),
        Key(
            name="receive_buffer",
            kind=knobs.size,
            default=default("receive_buffer", "0"),
            example='"128 KiB"',
            help="What the kernel takes from each peer before we have read it, likewise; see "
            "`/proc/sys/net/core/rmem_max`.",
        ),
        Key(
            name="splice",
            kind=flag,
            default=default("splice", "true"),
            example="false",
            help="Whether a bulky stream goes through a pipe, by splice(2), so that it is not copied.",
        ),
    )


_TUNNEL = Table(
    name="tunnel",
    help="How the sockets of tunnels are used; a rule may say otherwise for what it allows. All of it holds for "
    "tunnels that begin after a reload, and `spin` for those after a restart. What each of them costs or saves is "
    "[measured](../explanation/performance.md#what-the-knobs-do). Leave them alone unless you have measured, too.",
    keys=(
        *_knobs(of_rule=False),
        Key(
            name="spin",
            kind=flag,
            default="true",
            example="false",
            help="Whether the engine, before it sleeps, looks for 50 µs whether there is something to do: only while "
            "that has paid lately, and never while more than a fifth of these looks were in vain, but for single "
            "trials. It is one thread for all tunnels of a worker, so no rule can say it.",
        ),
    ),
)

_LOG = Table(
    name="log",
    help="Each session leaves one line on standard output.",
    keys=(
        Key(
            name="format",
            kind=word({"text": "text", "json": "json"}),
            default='"text"',
            help="How a line looks.",
        ),
        Key(name="targets", kind=flag, default="true", help="Whether it says where the client went."),
        Key(
            name="level",
            kind=word({one: one for one in ("debug", "info", "warning")}),
            default='"info"',
            help="The least that is written. A session has the level that its rule gives it by `log`, else `info`.",
        ),
    ),
)

_USER = Table(
    name="user",
    array=True,
    help="Who may log in. Limits hold for all sessions of the user together, on the whole server.",
    keys=(
        Key(
            name="name",
            kind=text("user name", not_first="@!"),
            required=True,
            example='"alice"',
            help="As the client sends it; compared byte by byte.",
        ),
        Key(
            name="password",
            kind=text("password", 512),
            required=True,
            secret=True,
            example='"$argon2id$v=19$m=19456,t=2,p=1$Uq0sTmMcZsPtYgJ6yWJpKw$5M1m1pJf3bQnU0yqv1m8m2l5x7n2v4jv7gXwq9o0a1c"',
            help="What `tabi passwd` prints. Clear text only together with `plain = true`.",
        ),
        Key(
            name="plain",
            kind=flag,
            default="false",
            example="true",
            help="`password` is clear text. Anybody who can read the file can then log in.",
        ),
        Key(
            name="groups",
            kind=text("name of a group", 64, not_first="@!"),
            many=True,
            default="none",
            example='["staff"]',
            help='What rules call `"@staff"`.',
        ),
        *_LIMITS,
    ),
)

_CLIENT = Table(
    name="client",
    array=True,
    help="What clients of some networks are asked for, in place of what their listener asks. The first table with the "
    "client's address counts. It lets nobody in: that is done by rules.",
    keys=(
        Key(
            name="from",
            kind=network,
            many=True,
            negatable=True,
            required=True,
            example='["10.0.0.0/8"]',
            help="Networks of clients.",
        ),
        Key(
            name="auth",
            kind=word(AUTH_WORDS),
            default="that of the listener",
            example='"any"',
            help="What they are asked for.",
        ),
        Key(
            name="socks4",
            kind=flag,
            default="true where there are no users, else false",
            example="true",
            help="Whether SOCKS4 and 4a are taken, which carry no password.",
        ),
    ),
)

_SET = Table(
    name="set",
    array=True,
    help="A file of names and networks, one in each line, `#` begins a comment. Rules call it `@name`.",
    keys=(
        Key(
            name="name",
            kind=text("name of a set", 64, not_first="@!"),
            required=True,
            example='"ads"',
            help="Letters, digits, dots, hyphens and underscores; not `private`.",
        ),
        Key(
            name="file",
            kind=text("file name", 4096),
            required=True,
            example='"ads.txt"',
            help="Path of the file, from the directory of the configuration.",
        ),
    ),
)

_RACE = Table(
    name="race",
    help="How upstreams race, where a rule says `pick = \"race\"`.",
    keys=(
        Key(
            name="head_start",
            kind=duration(0.01, 60),
            default='"0.25 s"',
            example='"0.5 s"',
            help="How long a way is alone before the next starts as well. Where it fails the next starts at once. The "
            "last winner is alone for twice as long as it took then, if that is longer, four head starts at most.",
        ),
        Key(
            name="memory",
            kind=duration(1, 86_400),
            default='"10 min"',
            example='"1 h"',
            help="How long the winner of a race starts first for the same destination, host and port. A way that has "
            "failed there starts last as long, twice as long after two failures, four times at most: to connect, or "
            "its connection was reset by the other side, or brought not a byte for what the client had sent, unless "
            "that left within 5 s, or it lost against one with a longer `handicap`.",
        ),
        Key(
            name="wasted",
            kind=dials,
            default='"10/s"',
            example='"1/s"',
            help="How many ways may be dialled beside others, by each worker. Where it is used up one way is tried "
            "at a time: the next when it has failed, or been silent for its share of the time.",
        ),
    ),
)

_UPSTREAM = Table(
    name="upstream",
    array=True,
    help="A way through other proxies, which rules take by `via`.",
    keys=(
        Key(
            name="name",
            kind=text("name of an upstream", 64, not_first="@!"),
            required=True,
            example='"office"',
            help="For `via` and the log.",
        ),
        Key(
            name="url",
            kind=proxy,
            many=True,
            required=True,
            secret=True,
            example='"socks5h://192.0.2.7:1080"',
            help="The proxy; several are a chain, the nearest first. The scheme says what it speaks: `socks5h` (or "
            "`socks5`), `socks4a` (or `socks4`), `http` for CONNECT; the first of each pair also takes names, the "
            "other is only ever given addresses. What has a meaning in URLs is percent-encoded in user name and "
            "password. `@FILE`, from the directory of the configuration, keeps a password out of this file.",
        ),
        Key(
            name="cool_down",
            kind=duration(0, 86_400),
            default='"30 s"',
            help="How long it rests after a proxy on it could not be reached, refused our password, or did not speak "
            "its protocol. While it rests it is tried after the other upstreams of a rule, and never left out.",
        ),
        Key(
            name="weight",
            kind=count(0, 1000),
            default="1",
            example="3",
            help="How many sessions it has beside the weights of the others, where a rule says `pick = \"weight\"`. "
            "0: only those for which the others have failed.",
        ),
        Key(
            name="handicap",
            kind=duration(0, 60),
            default="none",
            example='"2 s"',
            help="How much later than its turn it starts in a race, for one that is dear. It is not moved to the front "
            "for having won.",
        ),
        Key(
            name="trust",
            kind=trust,
            many=True,
            default='"all"',
            example='["encrypted", 8080]',
            help="Ports that it is trusted with; it is asked for no others, whatever the rule. `encrypted` are those "
            f"of protocols that need not trust it: {', '.join(map(str, kinds.ENCRYPTED))}. BIND and UDP need `all`.",
        ),
    ),
)

_RULE = Table(
    name="rule",
    array=True,
    help="The first rule that matches decides; where none does, the request is refused. A rule matches when all of its "
    "criteria do, and a criterion when one of its entries does; an entry that begins with `!` must not match.",
    keys=(
        Key(
            name="name",
            kind=text("name of a rule", 100),
            default="its number",
            example='"staff to the web"',
            help="For the log and for `tabi explain`.",
        ),
        Key(
            name="allow",
            kind=kinds.yes,
            example="true",
            help="Let the request through. A rule has either this or `refuse`.",
        ),
        Key(
            name="refuse",
            kind=word(REPLY_WORDS),
            example='"not-allowed"',
            help="Refuse the request with this reply. SOCKS4 clients hear 91, whatever it is.",
        ),
        Key(
            name="from", kind=network, many=True, negatable=True, default="any", example='["10.0.0.0/8"]',
            help="Networks of the client.",
        ),
        Key(
            name="listener", kind=kinds.listener, many=True, negatable=True, default="any", example='["0.0.0.0:1080"]',
            help="Where the client came in, as written in `listen`.",
        ),
        Key(
            name="version", kind=word({version.value: version.value for version in Version}), many=True,
            negatable=True, default="any", example='["5"]', help="Version of SOCKS that the client speaks.",
        ),
        Key(
            name="method", kind=word({"none": "none", "password": "password"}), many=True, negatable=True,
            default="any", example='["password"]', help="How the client has authenticated.",
        ),
        Key(
            name="command", kind=word({one: one for one in COMMAND_WORDS.values()}), many=True, negatable=True,
            default="any", example='["connect"]',
            help="What the client wants: TCP is `connect`, UDP `associate`. `resolve` and `resolve-ptr` are Tor's.",
        ),
        Key(
            name="user", kind=kinds.user_or_group, many=True, negatable=True, default="any", example='["@staff"]',
            help='Users that have logged in, and groups. Who has not logged in is none of them; `"!alice"` alone means '
            "everybody else who has logged in, and in a rule that refuses also those who have not.",
        ),
        Key(
            name="userid", kind=kinds.glob_text, many=True, negatable=True, default="any", example='["build*"]',
            help='What a SOCKS4 client claims to be, which proves nothing; `""` is who claims nothing.',
        ),
        Key(
            name="time", kind=week_time, many=True, negatable=True, default="any", example='["Mon-Fri 08:00-18:00"]',
            help="Time of the week, by the clock of this host. A span that ends before it begins goes on into the "
            "next day.",
        ),
        Key(
            name="port", kind=kinds.port, many=True, negatable=True, default="any",
            example='["80", "443", "8000-8999"]',
            help="Port of the target. For BIND it is that of the peer that is named, which is often 0.",
        ),
        Key(
            name="to", kind=host, many=True, negatable=True, default="any",
            example='["*.example.org", "203.0.113.0/24"]',
            help="The target. A name matches networks by the addresses that it leads to, each of which is judged. An "
            "address that the client sends, also as text, never matches a name: to keep clients from going around "
            "names use networks, or `literals`. Clients of other hosts reach `@private` (all that is not globally "
            "reachable, and this host itself) only by a rule that names it or a network inside it here; a rule with "
            "only names never opens it to anybody.",
        ),
        Key(
            name="literals", kind=flag, default="true", example="false",
            help="Whether a target may be an address. `false` refuses those requests; the rules that follow are "
            "not asked.",
        ),
        Key(
            name="auth", kind=word({"none": Method.NONE, "password": Method.USERPASS}), many=True, default="any",
            example='"password"',
            help="What the session must have authenticated by. Where it has not, a request that matches is refused, "
            "and the log says what would do. It changes nothing about what clients are asked for.",
        ),
        Key(
            name="open", kind=flag, default="false", example="true",
            help="Serve anybody on the Internet without authentication. Without it a file that would is refused.",
        ),
        Key(
            name="log", kind=word({one: one for one in get_args(LogLevel)}), default='"info"', example='"warning"',
            help="Level of the line that such a session leaves in the log; it stands in the line unless it is `info`. "
            "`level` of `[log]` says which are written. `none` leaves no line.",
        ),
        Key(
            name="any_peer", kind=flag, default="false", example="true",
            help="BIND: a client that names no peer (0.0.0.0 or ::) takes any.",
        ),
        Key(
            name="full_cone", kind=flag, default="false", example="true",
            help="UDP: let any address answer, not only those that the client has sent to.",
        ),
        Key(
            name="egress", kind=kinds.egress, default="the kernel chooses", example='"eth1"',
            help="Local address or interface that connections come from.",
        ),
        Key(
            name="via", kind=text("name of an upstream", 64, not_first="@!"), many=True, default="directly",
            example='["office", "spare"]',
            help="Upstreams to go through: the first, and where it has failed the next. What a proxy answers about a "
            "target is the answer; it is not asked for elsewhere, nor directly. A name is looked up here, each address "
            "is judged, and the address is what the upstream is asked for, unless no rule could refuse any address. "
            "In a race `direct` is the way without an upstream.",
        ),
        Key(
            name="pick", kind=word({"order": "order", "weight": "weight", "race": "race"}), default='"order"',
            example='"weight"',
            help="With several upstreams in `via`: which is taken. `order` tries them as they are written; `weight` in "
            "an order by chance, for each session anew, as their weights say; where one has failed, the next. `race` "
            "starts one after the other and takes the first that is connected; BIND and UDP keep to the order.",
        ),
        Key(
            name="resolve", kind=word({"here": "here", "upstream": "upstream"}), default='"here"',
            example='"upstream"',
            help="With `via`: who looks names up. `upstream` gives it every name that this rule allows by itself, and "
            "trusts it with the addresses: no rule about addresses is asked for it, those before this rule and the "
            "guard of `@private` included. A rule with networks in `to` allows other names only by their addresses, "
            "which are then looked up here.",
        ),
        Key(
            name="prefer", kind=word({"ipv4": 4, "ipv6": 6}), default='"ipv6"', example='"ipv4"',
            help="Which addresses of a name are tried first; the others are tried soon after.",
        ),
        Key(
            name="connect", kind=duration(0.1, 120), default="time.connect", example='"10 s"',
            help="See `[time]`.",
        ),
        Key(
            name="idle", kind=duration(1, _YEARS, none=True), default="time.idle", example='"1 h"', help="See `[time]`."
        ),
        Key(
            name="half_open", kind=duration(1, _YEARS, none=True), default="time.half_open", example='"1 min"',
            help="See `[time]`.",
        ),
        *_knobs(of_rule=True),
        *_LIMITS,
    ),
)  # fmt: skip

TABLES: Final = {
    table.name: table
    for table in (
        _TOP, _LISTEN, _TIME, _CAP, _BIND, _UDP, _TUNNEL, _LOG, _USER, _CLIENT, _SET, _RACE, _UPSTREAM, _RULE,
    )
}  # fmt: skip
"""All tables by name, in the order of the reference."""
