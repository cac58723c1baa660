"""requests and urllib3 with tabi.compat in the place of PySocks, each in an interpreter of its own."""

import subprocess
import sys

import pytest

from helpers.name_service import NameService
from helpers.serving import Running, serving
from helpers.targets import closed_port, http, target
from helpers.waiting import PATIENCE
from tabi.server import Passwords

PROGRAM = """
import sys, tabi.compat
sys.modules["socks"] = tabi.compat
import requests
url, proxy = sys.argv[1:]
try:
    answer = requests.get(url, proxies={"http": proxy}, timeout=20)
except requests.ConnectionError as error:
    print(type(error).__name__, error)
else:
    print(answer.status_code, answer.text)
assert sys.modules["urllib3.contrib.socks"].socks is tabi.compat
"""


def get(url: str, proxy: str) -> str:
    """Run the program without a proxy variable of ours."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, proxy],
        capture_output=True,
        text=True,
        check=False,
        timeout=3 * PATIENCE,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_pages_come_through(scheme: str) -> None:
    with serving() as running, target(http()) as (host, port):
        proxy = f"{scheme}://127.0.0.1:{running.address[1]}"
        assert get(f"http://{host}:{port}/", proxy) == "200 hello through tabi\n\n"
        running.line(to=f"127.0.0.1:{port}")


def test_names_go_to_the_proxy_and_a_login_opens_it() -> None:
    with serving(authenticator=Passwords({b"alice": b"sesame"})) as running, target(http()) as (_, port):
        NameService({"site.example": ["127.0.0.1"]}).serve(running)
        proxy = f"socks5h://alice:sesame@127.0.0.1:{running.address[1]}"
        assert get(f"http://site.example:{port}/", proxy).startswith("200 ")
        assert "sesame" not in get(f"http://site.example:{port}/", proxy.replace("sesame", "wrong"))


def test_a_refusal_is_an_error_of_requests() -> None:
    with serving() as running:
        said = get(f"http://127.0.0.1:{closed_port()}/", proxy_of(running))
    assert said.startswith("ConnectionError")
    assert "onnection refused" in said


def proxy_of(running: Running) -> str:
    return f"socks5h://127.0.0.1:{running.address[1]}"
