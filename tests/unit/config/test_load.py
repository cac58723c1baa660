"""Reading whole files."""

import pickle
from ipaddress import ip_address
from pathlib import Path

import pytest

from tabi.addr import Endpoint, Name
from tabi.config.load import MAX_SIZE, load, load_text
from tabi.config.problems import ConfigurationError
from tabi.config.settings import Settings
from tabi.policy import covering
from tabi.policy.verdict import Context, Request
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

SECRET = "correct horse battery"
USER = f'[[user]]\nname = "alice"\npassword = "{SECRET}"\nplain = true\ngroups = ["staff"]\n'


def write(directory: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = directory / "tabi.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def complaint(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    return str(caught.value).replace(str(path), "tabi.toml")


def test_empty_file_has_the_defaults_and_allows_nothing(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, ""))
    assert loaded.settings.listen == Settings().listen
    assert loaded.settings.time == Settings().time
    assert loaded.rules.rules == ()
    assert loaded.warnings == ()
    assert (loaded.workers, loaded.user) == (None, None)


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert complaint(tmp_path / "none.toml") == "tabi.toml: the file cannot be read: No such file or directory"


def test_directory_is_no_file(tmp_path: Path) -> None:
    assert "Is a directory" in complaint(tmp_path)


def test_file_that_is_not_text_is_refused_with_its_line(tmp_path: Path) -> None:
    assert complaint(write(tmp_path, b"a = 1\nb = '\xff'\n")) == "tabi.toml:2: the file is not UTF-8, which TOML is"


def test_enormous_file_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    with path.open("wb") as stream:
        stream.truncate(MAX_SIZE + 1)
    assert "a configuration has at most" in complaint(path)


def test_end_of_file_in_a_string_has_the_last_line(tmp_path: Path) -> None:
    assert complaint(write(tmp_path, "a = 1\nb = '''\nx")).startswith(
        "tabi.toml:3: this is no TOML, at the end of the file"
    )


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_plain_passwords_that_everybody_can_read_are_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    warnings = [str(problem) for problem in load(write(tmp_path, USER, mode)).warnings]
    assert any("every user of this host can read" in warning for warning in warnings) == warned


def test_hashed_passwords_may_be_read(tmp_path: Path) -> None:
    hashed = "$argon2id$v=19$m=19456,t=2,p=1$Uq0sTmMcZsPtYgJ6yWJpKw$5M1m1pJf3bQnU0yqv1m8m2l5x7n2v4jv7gXwq9o0a1c"
    text = f'[[user]]\nname = "alice"\npassword = "{hashed}"\n'
    loaded = load(write(tmp_path, text, 0o644))
    assert loaded.warnings == ()
    assert loaded.users[b"alice"].stored == hashed


@pytest.mark.parametrize(
    ("listen", "warned"), [("127.0.0.1:1080", False), ("[::1]:1080", False), ("10.0.0.1:1080", True)]
)
def test_passwords_in_clear_from_other_hosts_are_warned_of(listen: str, warned: bool) -> None:
    loaded = load_text(f'listen = "{listen}"\n{USER}', "tabi.toml")
    assert [problem.line for problem in loaded.warnings] == ([1] if warned else [])


def test_rules_that_were_not_compared_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covering, "_STEPS", 50)
    text = "".join(f"[[rule]]\nrefuse = 'not-allowed'\nto = '!host{number}.example'\n" for number in range(100))
    (warning,) = load_text(text, "tabi.toml").warnings
    assert 20 < warning.line < 200
    assert "from here on tabi did not look for rules that can never match" in str(warning)


def test_passwords_in_clear_that_only_a_client_table_asks_for_are_warned_of() -> None:
    client = '[[client]]\nfrom = "10.0.0.0/8"\nauth = "password"\n'
    loaded = load_text(f'listen = [{{address = "10.0.0.1:1080", auth = "none"}}]\n{USER}{client}', "tabi.toml")
    assert [problem.line for problem in loaded.warnings] == [1]


def test_password_is_nowhere_shown(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, USER))
    assert loaded.users[b"alice"].stored == f"plain:{SECRET}"
    assert SECRET not in repr(loaded)
    assert SECRET not in repr(loaded.users)
    for faulty in (USER.replace("plain = true", ""), USER.replace('"\nplain', '\\u0000"\nplain'), USER + "x = 1\n"):
        assert SECRET not in complaint(write(tmp_path, faulty))


def test_set_files_are_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "ads.txt").write_text("ads.example\n")
    rules = '[[rule]]\nrefuse = "not-allowed"\nto = "@ads"\n[[rule]]\nallow = true\n'
    text = '[[set]]\nname = "ads"\nfile = "ads.txt"\n' + rules
    loaded = load(write(tmp_path, text))
    client = Context(Endpoint.parse("127.0.0.1:1"), Endpoint.parse("127.0.0.1:1080"), Version.SOCKS5, Method.NONE)
    for name, allowed in (("ads.example", False), ("other.example", True)):
        assert loaded.rules(Request(Command.CONNECT, Endpoint(Name(name), 80)), client).allow == allowed


def test_configuration_survives_pickling(tmp_path: Path) -> None:
    """That is how workers get it."""
    golden = Path(__file__).parents[2] / "golden" / "config" / "everything.toml"
    loaded = load(golden, own=[ip_address("198.51.100.7")])
    again = pickle.loads(pickle.dumps(loaded))
    assert again.users == loaded.users
    assert again.access.methods == loaded.access.methods
    client = Context(Endpoint.parse("10.1.0.1:1"), Endpoint.parse("127.0.0.1:1081"), Version.SOCKS5, Method.NONE)
    for host in ("x.ads.example", "good.ads.example", "other.example"):
        request = Request(Command.CONNECT, Endpoint(Name(host), 80))
        assert again.rules(request, client) == loaded.rules(request, client)
    assert ip_address("198.51.100.7") in again.rules.private


def test_error_survives_pickling(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_text("x = 1", "tabi.toml")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.problems) == (str(caught.value), caught.value.problems)


def test_own_addresses_are_what_private_means_in_rules_too() -> None:
    text = '[[rule]]\nname = "own"\nrefuse = "ttl-expired"\nto = "@private"\n'
    own = ip_address("198.51.100.7")
    client = Context(Endpoint.parse("10.1.0.1:1"), Endpoint.parse("127.0.0.1:1080"), Version.SOCKS5, Method.NONE)
    request = Request(Command.CONNECT, Endpoint(own, 80))
    assert load_text(text, "x", own=[own]).rules(request, client).rule == "own"
    assert load_text(text, "x").rules(request, client).rule == "no rule matched"


def test_groups_are_those_of_the_user() -> None:
    loaded = load_text(USER, "x")
    assert loaded.groups(b"alice") == {"staff"}
    assert loaded.groups(b"bob") == loaded.groups(None) == frozenset()


def test_everybody_but_alice_is_refused_and_who_did_not_log_in() -> None:
    text = f'auth = "any"\n{USER}[[rule]]\nrefuse = "not-allowed"\nuser = "!alice"\n[[rule]]\nallow = true\n'
    rules = load_text(text, "x").rules
    here, listener = Endpoint.parse("127.0.0.1:1"), Endpoint.parse("127.0.0.1:1080")
    request = Request(Command.CONNECT, Endpoint(Name("a.example"), 80))
    for user, allowed in ((None, False), (b"alice", True)):
        method = Method.NONE if user is None else Method.USERPASS
        assert rules(request, Context(here, listener, Version.SOCKS5, method, user)).allow == allowed


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("lisen = 1", 'did you mean "listen"?'),
        ("[timeouts]", 'did you mean "time"?'),
        ("[[rule]]\nallow = true\nports = 80", 'did you mean "port"?'),
        ("[[rule]]\nallow = true\ndestination = 'x'", 'did you mean "to"?'),
        ("[[rule]]\ndeny = true\nallow = true", 'did you mean "refuse"?'),
        ("[time]\nper_client = 3", "it belongs into [cap]"),
        ("[[rule]]\nallow = true\nhandshake = 3", "it belongs into [time]"),
        ("[log]\nworkers = 3", "it belongs into the top of the file, before any table"),
        ("zzz = 3", "known are auth, trusted, "),
    ],
)
def test_unknown_key_is_answered_by_a_near_one(key: str, near: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_text(key, "tabi.toml")
    assert near in str(caught.value)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_password_of_a_proxy_in_a_file_that_all_can_read_is_warned_of(
    tmp_path: Path, mode: int, warned: bool
) -> None:
    (tmp_path / "office.url").write_text(f"socks5h://alice:{SECRET.replace(' ', '%20')}@192.0.2.7\n")
    (tmp_path / "office.url").chmod(mode)
    loaded = load(write(tmp_path, '[[upstream]]\nname = "office"\nurl = "@office.url"\n'))
    assert loaded.upstreams["office"].hops[0].password.decode() == SECRET
    assert [f"chmod o-r {tmp_path}/office.url" in str(problem) for problem in loaded.warnings] == [True] * warned


def test_no_complaint_about_an_upstream_and_no_repr_shows_its_password(tmp_path: Path) -> None:
    (tmp_path / "office.url").write_text("socks5h://alice:horse@192.0.2.7:99999\n")
    for url in ("socks5h://alice:horse@192.0.2.7:99999", "http://al:horse", "@office.url"):
        assert "horse" not in complaint(write(tmp_path, f'[[upstream]]\nname = "office"\nurl = "{url}"\n', 0o644))
    loaded = load(write(tmp_path, '[[upstream]]\nname = "office"\nurl = "http://alice:horse@192.0.2.7"\n', 0o644))
    assert "horse" not in f"{loaded!r} {loaded.warnings}"


def test_an_upstream_at_an_own_address_of_a_listener_on_all_is_refused() -> None:
    text = 'listen = ["0.0.0.0:1080"]\n[[upstream]]\nname = "loop"\nurl = "http://192.0.2.9:1080"\n'
    load_text(text, "x", own=[ip_address("192.0.2.8")])
    with pytest.raises(ConfigurationError, match="leads to this server itself"):
        load_text(text, "x", own=[ip_address("192.0.2.9")])
