"""Which proxy the environment wants, and for which targets none."""

import pytest

from tabi.addr import Endpoint
from tabi.client.environment import is_exempt, proxies_from_environment
from tabi.errors import AddressError, ConfigError

ONE, TWO = "socks5h://one.example:1080", "socks5h://two.example:1080"


def chosen(scheme: str, **environ: str) -> str:
    found = proxies_from_environment("target.example", 443, scheme=scheme, environ=environ)
    return str(found[0]) if found else ""


@pytest.mark.parametrize(
    ("scheme", "environ", "expected"),
    [
        ("https", {"https_proxy": ONE, "all_proxy": TWO}, ONE),
        ("https", {"HTTPS_PROXY": ONE, "ALL_PROXY": TWO}, ONE),
        ("https", {"https_proxy": ONE, "HTTPS_PROXY": TWO}, ONE),
        ("https", {"http_proxy": ONE, "ALL_PROXY": TWO}, TWO),
        ("https", {"all_proxy": ONE, "ALL_PROXY": TWO}, ONE),
        ("HTTPS", {"https_proxy": ONE}, ONE),
        ("http", {"http_proxy": ONE}, ONE),
        ("http", {"HTTP_PROXY": ONE}, ""),  # CVE-2016-5385
        ("http", {"HTTP_PROXY": ONE, "ALL_PROXY": TWO}, TWO),
        ("ssh", {"SSH_PROXY": ONE}, ONE),
        ("", {"https_proxy": ONE, "ALL_PROXY": TWO}, TWO),
        ("", {}, ""),
        ("https", {"https_proxy": "", "ALL_PROXY": TWO}, ""),  # empty means none, as with curl
        ("https", {"https_proxy": ONE, "no_proxy": "target.example"}, ""),
        ("https", {"https_proxy": ONE, "NO_PROXY": "target.example"}, ""),
        ("https", {"https_proxy": ONE, "no_proxy": "", "NO_PROXY": "target.example"}, ONE),
    ],
)
def test_variables_are_asked_in_their_order(scheme: str, environ: dict[str, str], expected: str) -> None:
    assert chosen(scheme, **environ) == expected


@pytest.mark.parametrize(
    ("entries", "target", "expected"),
    [
        ("*", "target.example:80", True),
        ("target.example", "target.example:80", True),
        ("target.example", "www.target.example:80", True),
        ("target.example", "nottarget.example:80", False),
        ("target.example", "target.example.evil.example:80", False),
        ("TARGET.example.", "Target.Example:80", True),
        (".target.example", "www.target.example:80", True),
        (".target.example", "target.example:80", False),
        ("*.target.example", "www.target.example:80", True),
        ("*.target.example", "target.example:80", False),
        ("target.example:81", "target.example:80", False),
        ("target.example:80", "target.example:80", True),
        ("a.example, b.example  c.example", "b.example:80", True),
        ("a.example, b.example  c.example", "c.example:80", True),
        (",, ,", "a.example:80", False),
        ("192.0.2.1", "192.0.2.1:80", True),
        ("192.0.2.1", "192.0.2.10:80", False),
        ("192.0.2.1:81", "192.0.2.1:80", False),
        ("192.0.2.1", "[::ffff:192.0.2.1]:80", True),
        ("192.0.2.0/24", "192.0.2.77:80", True),
        ("192.0.2.7/24", "192.0.2.77:80", True),
        ("192.0.2.0/24", "192.0.3.77:80", False),
        ("192.0.2.0/24", "[2001:db8::1]:80", False),
        ("2001:db8::/32", "[2001:db8::1]:80", True),
        ("2001:db8::1", "[2001:db8::1]:80", True),
        ("[2001:db8::1]", "[2001:db8::1]:80", True),
        ("[2001:db8::1]:81", "[2001:db8::1]:80", False),
        ("[2001:db8::1]:80", "[2001:db8:0::1]:80", True),
        ("2001:db8::1", "[2001:db8::10]:80", False),
        ("192.0.2.0/24", "target.example:80", False),
        ("1", "target.example:80", None),
        ("192.0.2.*", "target.example:80", None),
        ("a_b c/d", "target.example:80", None),
        ("http://a.example", "target.example:80", None),
        ("fe80::1%eth0", "target.example:80", None),
    ],
)
def test_no_proxy_is_exact(entries: str, target: str, expected: bool | None) -> None:
    environ = {"no_proxy": entries}
    if expected is None:
        with pytest.raises(ConfigError, match="no_proxy"):
            is_exempt(Endpoint.parse(target), environ)
    else:
        assert is_exempt(Endpoint.parse(target), environ) is expected


def test_a_zone_cannot_pose_as_a_domain() -> None:
    """CVE-2025-22870: ``[::1%25.target.example]`` matched ``*.target.example``."""
    with pytest.raises(AddressError, match="zone"):
        proxies_from_environment("::1%.target.example", 80, environ={"all_proxy": ONE, "no_proxy": ".target.example"})


def test_a_variable_that_cannot_be_read_is_named_and_its_password_is_not() -> None:
    for url in ("https://alice:sesame@h.example", "socks5h://alice:sesame@h.example:x", "socks4://a:sesame@h.example"):
        with pytest.raises(ConfigError, match=r"^ALL_PROXY: ") as caught:
            chosen("", ALL_PROXY=url)
        assert "sesame" not in str(caught.value)


def test_the_process_own_variables_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", ONE)
    assert [str(hop) for hop in proxies_from_environment("target.example", 80)] == [ONE]
