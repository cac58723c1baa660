"""The tutorial's server, run: its password opens, its rules decide, and its commands print what the page shows."""

import re
import shlex
from pathlib import Path

import pytest

from helpers.configured import Configured, asked_as, configured
from helpers.pages import ROOT, blocks, steps
from helpers.programs import run
from tabi.cli.main import main

PAGE = ROOT / "docs" / "tutorial" / "first-proxy.md"
TOML = next(block.text for block in blocks(PAGE) if block.language == "toml")
HERE = TOML.replace("127.0.0.1:1080", "127.0.0.1:0")
STEPS = [step for block in blocks(PAGE) if block.language == "console" for step in steps(block)]
SESSIONS = next(step.output for step in STEPS if step.command == "tabi sessions")
PASSWORD = b"correct horse"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with configured(tmp_path, HERE, workers=1) as running:
        running.ports()
        running.line("tabi: control socket ")
        yield running


def test_serve_says_what_the_page_shows(server: Configured) -> None:
    shown = next(step.output for step in STEPS if step.command.startswith("tabi serve"))
    said = "\n".join((*server.errors, ""))
    changing = r":\d+|socket .*|(?<=engine )\w+"
    assert re.sub(changing, "", said) == re.sub(changing, "", shown)


def test_rule_of_the_page_refuses_mail(server: Configured) -> None:
    """Needs no look-up: the name's addresses are not asked for where no rule could allow."""
    sock, reply = asked_as(server.address, b"alice", ("example.org", 25), PASSWORD)
    sock.close()
    assert reply == 2
    said = server.line("verdict=refuse")
    shown = next(line for line in PAGE.read_text().splitlines() if "verdict=refuse" in line)
    changing = r"^\S+|\d+ms|(?<=session=)\d+|(?<=:)\d{4,5}|(?<=_ms=)[\d.]+"
    assert re.sub(changing, "", said) == re.sub(changing, "", shown)


def test_sessions_has_the_columns_of_the_page(server: Configured) -> None:
    assert server.tabi("sessions").stdout.split() == SESSIONS.splitlines()[0].split()


def test_sessions_prints_a_row_as_the_page_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server's answer is typed here: a session to port 80 of a public address is none that a test may have."""
    row = {"worker": 0, "session": 3, "client": "127.0.0.1:39672", "user": "alice", "command": "connect"}
    row |= {"target": "example.org:80", "to": "93.184.216.34:80", "rule": "alice, the web", "stage": "relay"}
    row |= {"up": 78, "down": 0, "age": 1.2, "idle": 1.1}
    monkeypatch.setattr("tabi.server.control.ask", lambda *_: {"ok": True, "rows": [row]})
    assert main(["sessions"]) == 0
    assert capsys.readouterr().out == SESSIONS


@pytest.mark.parametrize("page", [PAGE, PAGE.with_suffix(".zh.md")], ids=lambda page: page.name)
def test_both_pages_show_the_same_sessions(page: Path) -> None:
    assert SESSIONS in page.read_text()


def test_changing_it_while_it_runs_is_as_the_page_shows(server: Configured) -> None:
    """Commands from the first sed on, against the server; explain is run by tests/unit/docs."""
    assert Path.cwd() == server.file.parent
    ran = []
    for step in STEPS:
        program, *arguments = shlex.split(step.command)
        if program == "sed":
            run("sed", *arguments)
        elif step.command == "tabi reload":
            done = server.tabi(*arguments)
            told = (done.stdout + done.stderr).replace(f"{server.file}:", f"{server.file.name}:")
            assert told == step.output, step
            ran.append(done.returncode)
    assert ran == [1, 0]
