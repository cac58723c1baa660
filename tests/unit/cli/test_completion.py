"""`tabi completion`: what the scripts offer. The measure is the help, which argparse writes from the same parser."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from helpers.programs import need, run
from tabi.cli.completion import SHELLS
from tabi.cli.main import build_parser, main
from tabi.cli.outline import Command, Takes, outline

OUTLINE = outline(build_parser())
BY_NAME = {command.name: command for command in OUTLINE}


def help_of(*words: str) -> str:
    """Give what a command says of itself."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()


def script(shell: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["completion", shell]) == 0
    return printed.getvalue()


def test_every_command_of_the_help_is_in_the_outline() -> None:
    listed = re.findall(r"^    ([a-z]+)\b", help_of(), re.MULTILINE)
    assert listed == [command.name for command in OUTLINE if command.name]
    assert {"serve", "run", "completion"} <= set(listed)


@pytest.mark.parametrize("command", OUTLINE, ids=lambda command: command.name or "tabi")
def test_every_option_of_the_help_is_in_the_outline(command: Command) -> None:
    words = [command.name] if command.name else []
    listed = re.findall(r"^  (?:(-\w)(?: \S+)?, )?(--[\w-]+)", help_of(*words), re.MULTILINE)
    shown = [name for pair in listed for name in pair if name]
    assert shown == [name for option in command.options for name in option.names]
    assert shown or command.name == "passwd"


@pytest.mark.parametrize("shell", SHELLS)
def test_no_command_and_no_option_is_forgotten(shell: str) -> None:
    lines = script(shell)
    for command in OUTLINE[1:]:
        assert re.search(rf"\b{command.name}\b", lines)
        for option in command.options:
            for name in option.names:
                assert named(shell, command.name, name).search(lines), (command.name, name)


def named(shell: str, command: str, option: str) -> re.Pattern[str]:
    """Where a script has an option of a command."""
    if shell == "bash":
        return re.compile(rf"^ +{command}\) options='[^']*(?<![\w-]){option}[ ']", re.MULTILINE)
    if shell == "zsh":
        return re.compile(rf"^        {command}\)\n(?:(?!;;).)*[')*]{option}[=+\[]", re.MULTILINE | re.DOTALL)
    spelled = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
    return re.compile(rf"^complete -c tabi -n '__tabi_is {command}(?: 0)?' (?:-\w \S+ )?{spelled} ", re.MULTILINE)


def test_what_is_hidden_in_the_help_stays_so() -> None:
    assert not any("--rules" in script(shell) for shell in SHELLS)


@pytest.mark.parametrize(
    ("command", "option", "takes"),
    [
        ("serve", "--config", Takes.FILE),
        ("status", "--control", Takes.FILE),
        ("connect", "--proxy", Takes.PROXY),
        ("run", "--user", Takes.USER),
        ("explain", "--user", Takes.ANYTHING),  # a user of the proxy, and no account of this host
        ("explain", "--method", Takes.CHOICE),
    ],
)
def test_a_value_is_what_its_help_calls_it(command: str, option: str, takes: Takes) -> None:
    (value,) = [one.value for one in BY_NAME[command].options if option in one.names]
    assert value is not None
    assert value.takes is takes


def test_help_says_where_the_output_goes() -> None:
    said = help_of("completion")
    for shell in SHELLS:
        assert f"tabi completion {shell} > ~/" in said


BREAKS = re.compile(r"\s+|([:=@><|&;(]+)|([^\s:=@><|&;(]+)")
ASK = """\
source "$1"
while IFS= read -r line; do
    IFS= read -r words
    COMP_WORDS=() COMP_LINE=$line COMP_POINT=${#line}
    eval "COMP_WORDS=($words)"
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
    _tabi tabi "${COMP_WORDS[COMP_CWORD]}" x
    (IFS=$'\\x1f'; printf '%s\\n' "${COMPREPLY[*]}")
done
"""


def taken_apart(line: str) -> list[str]:
    """Give the words of a line as bash does, which breaks them at colons, equals signs and at signs."""
    words = [one[0] for one in BREAKS.finditer(line) if not one[0].isspace()]
    return [*words, ""] if line[-1].isspace() else words


def offered(directory: Path, *lines: str) -> list[list[str]]:
    """Ask bash what it would offer at the end of each line."""
    file = directory / "tabi.bash"
    file.write_text(script("bash"))
    quoted = (" ".join(f"'{word}'" for word in taken_apart(line)) for line in lines)
    sends = "".join(f"{line}\n{words}\n" for line, words in zip(lines, quoted, strict=True))
    ask = (need("bash"), "-c", ASK, "bash", file)
    done = run(*ask, sends=sends.encode(), environment={"PATH": str(directory)}, cwd=directory)
    assert done.stderr == b""
    return [sorted(filter(None, line.split("\x1f"))) for line in done.stdout.decode().splitlines()]


def test_bash_offers_what_fits(tmp_path: Path) -> None:
    (tmp_path / "proxy.url").touch()
    (tmp_path / "some-program").touch(0o755)
    expected = {
        "tabi co": ["completion", "config", "connect"],
        "tabi --v": ["--version"],
        "tabi connect --t": ["--timeout"],
        "tabi serve --log-format ": ["json", "text"],
        "tabi serve --log-format=j": ["json"],
        "tabi serve --config pro": ["proxy.url"],
        "tabi check pro": ["proxy.url"],
        "tabi explain --version 4 ": ["associate", "bind", "connect"],
        "tabi explain connect ": [],
        "tabi connect -x http://127.0.0.1:1 --ti": ["--timeout"],
        "tabi resolve --timeout 3 -": ["--help", "--json", "--proxy", "--timeout", "-h", "-x"],
        "tabi run -x socks5h://127.0.0.1:1 -- some": ["some-program"],
        "tabi run some": ["some-program"],
        "tabi run -- cat pro": ["proxy.url"],
        "tabi run -- cat --": [],
        "tabi passwd -": [],
        "tabi completion ": sorted(SHELLS),
    }
    assert dict(zip(expected, offered(tmp_path, *expected), strict=True)) == expected


def test_bash_offers_proxies_and_files_that_hold_one(tmp_path: Path) -> None:
    (tmp_path / "proxy.url").touch()
    schemes, files = offered(tmp_path, "tabi connect -x socks4", "tabi connect -x @pro")
    assert schemes == ["socks4://", "socks4a://"]
    assert files == ["proxy.url "]  # the at sign is a word of its own here, and stays


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_can_read_its_script(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(script(shell))
    done = run(need(shell), "-n", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
