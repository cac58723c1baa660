"""`tabi passwd` as users start it: at a terminal, or with a line on standard input."""

import errno
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.tcp_table import unread
from helpers.waiting import PATIENCE, until
from tabi.config.stored import Hash, parse_stored
from tabi.server.passwords import matches

PASSWD = (sys.executable, "-m", "tabi", "passwd")
SECRET = "pässwörd ☃"


def passwd(sends: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PASSWD, *arguments], input=sends, capture_output=True, timeout=PATIENCE, check=False)


def opened_by(printed: bytes, password: bytes) -> bool:
    """Say whether what was printed is one line of a configuration whose password is this one."""
    assert printed.count(b"\n") == 1
    stored = parse_stored(tomllib.loads(printed.decode())["password"])
    assert isinstance(stored, Hash)
    return matches(stored, password)


@pytest.mark.parametrize(
    ("sends", "password"),
    [
        (b"hunter2\n", b"hunter2"),
        (b"hunter2", b"hunter2"),
        (b"hunter2\nmore\n", b"hunter2"),
        (b" space \n", b" space "),
        (f"{SECRET}\n".encode(), SECRET.encode()),
        (b"\xff\xfe\n", b"\xff\xfe"),
        (b"x" * 255 + b"\n", b"x" * 255),
    ],
)
def test_a_line_becomes_the_line_for_the_file(sends: bytes, password: bytes) -> None:
    done = passwd(sends)
    assert (done.returncode, done.stderr) == (0, b"")
    assert opened_by(done.stdout, password)


@pytest.mark.parametrize(
    ("sends", "says"),
    [
        (b"", b"empty"),
        (b"\n", b"empty"),
        (b"x" * 256, b"256 bytes"),
        (b"x" * 5000, b"RFC 1929 takes 1 to 255"),
        (b"hunter2\0\n", b"NUL"),
        (b"hunter2\r\n", b"control byte (byte 8)"),
    ],
)
def test_what_no_client_could_send_is_refused_in_clear_words(sends: bytes, says: bytes) -> None:
    done = passwd(sends)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"tabi: the password ")
    assert says in done.stderr
    assert b"hunter2" not in done.stderr


@pytest.mark.parametrize("words", [["hunter2"], ["--hunter2"], ["-hunter2"], ["--help=hunter2"], ["a", "hunter2"]])
def test_a_password_is_not_taken_as_argument_and_not_repeated(words: list[str]) -> None:
    done = passwd(b"", *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"not given as an argument" in done.stderr
    assert b"hunter2" not in done.stderr


def test_help_tells_both_ways() -> None:
    done = passwd(b"", "--help")
    assert done.returncode == 0
    assert b"twice" in done.stdout
    assert b"standard input" in done.stdout


def test_without_argon2_it_says_how_to_install_it_before_it_asks(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'argon2' else find(name, *rest)\n"
    )
    done = subprocess.run(
        PASSWD, stdin=subprocess.PIPE, capture_output=True, timeout=PATIENCE, check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert b"-m pip install 'tabi[server]'" in done.stderr


class Terminal:
    """`tabi passwd` at a terminal; `shown` is what its screen has had so far."""

    def __init__(self) -> None:
        self._ours, theirs = os.openpty()
        os.set_blocking(self._ours, False)
        self.process = subprocess.Popen(
            PASSWD, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, start_new_session=True
        )
        os.close(theirs)
        self._shown = b""

    @property
    def shown(self) -> str:
        self._read()
        return self._shown.decode()

    def _read(self) -> bool:
        """Take what the screen has got by now; False: the other side is closed, and no more will come."""
        try:
            self._shown += os.read(self._ours, 65536)
        except BlockingIOError:  # nothing new
            return True
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        return True

    def answer(self, prompt: str, times: int, text: str) -> None:
        until(lambda: self.shown.count(prompt) == times, lambda: f"{prompt} in {self.shown}")
        os.write(self._ours, text.encode())

    def finish(self) -> tuple[int, bytes]:
        with self.process:
            out, _ = self.process.communicate(timeout=PATIENCE)
        until(lambda: not self._read(), "all that it wrote")
        os.close(self._ours)
        return self.process.returncode, out


def test_at_a_terminal_it_asks_twice_and_shows_nothing_of_it() -> None:
    terminal = Terminal()
    terminal.answer("password: ", 1, f"{SECRET}\n")
    terminal.answer("password again: ", 1, f"{SECRET}\n")
    code, printed = terminal.finish()
    assert code == 0
    assert opened_by(printed, SECRET.encode())
    assert re.fullmatch(r"password: \s*password again: \s*", terminal._shown.decode())


def test_two_different_passwords_make_nothing() -> None:
    terminal = Terminal()
    terminal.answer("password: ", 1, "one\n")
    terminal.answer("password again: ", 1, "two\n")
    assert terminal.finish() == (1, b"")
    assert "the two passwords differ" in terminal._shown.decode()


@pytest.mark.parametrize(
    ("typed", "says"), [("\n", "empty"), ("\x04", "no password was typed"), ("x" * 256 + "\n", "256 bytes")]
)
def test_a_useless_password_is_refused_before_it_is_asked_for_again(typed: str, says: str) -> None:
    terminal = Terminal()
    terminal.answer("password: ", 1, typed)
    assert terminal.finish() == (1, b"")
    assert says in terminal._shown.decode()
    assert "again" not in terminal._shown.decode()


def test_nobody_sees_the_password_in_the_list_of_processes() -> None:
    with subprocess.Popen(PASSWD, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hunter2")  # no end of the line yet: it goes on reading
        process.stdin.flush()
        until(lambda: not unread(process.stdin), "the password to be read")  # so it is tabi, and has all its arguments
        cmdline, environ = (Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
        process.stdin.close()
        assert opened_by(process.stdout.read(), b"hunter2")
    assert cmdline.endswith(b"\0tabi\0passwd\0")
    assert b"PATH=" in environ
    assert b"hunter2" not in cmdline + environ
