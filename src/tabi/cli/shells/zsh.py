"""Completion for zsh, by its own `_arguments`."""

from collections.abc import Iterable, Iterator
from shlex import quote

from tabi.cli.outline import Argument, Command, Option, Takes, Value

__all__ = ["script"]

_SCRIPT = """\
#compdef tabi
# Completion of tabi for zsh, as `tabi completion zsh` prints it.

_tabi_proxies() {
    if compset -P @; then
        _files
    else
        compadd -S '' -- @SCHEMES@ @
    fi
}

_tabi_program() {
    if [[ $words[1] == -- ]]; then
        shift words
        ((CURRENT -= 1))
    fi
    if ((CURRENT == 1)); then
        _command_names -e
    else
        _normal
    fi
}

_tabi() {
    local curcontext=$curcontext state line
    local -A opt_args
    local -a known=(
@COMMANDS@
    )
    _arguments -C -S \\
@OPTIONS@
        '1: :->command' '*:: :->rest' && return
    if [[ $state == command ]]; then
        _describe -t commands command known
        return
    fi
    curcontext=${curcontext%:*:*}:tabi-$words[1]:
    case $words[1] in
@CASES@
    esac
}

if [[ $funcstack[1] == _tabi ]]; then
    _tabi "$@"
else
    compdef _tabi tabi
fi
"""


def script(commands: tuple[Command, ...], schemes: Iterable[str]) -> str:
    """Write the script, which works in a directory of `fpath` and when it is sourced.

    Args:
        commands: the outline.
        schemes: of proxy URLs.
    """
    tabi, *others = commands
    places = {
        "@SCHEMES@": " ".join(f"{scheme}://" for scheme in schemes),
        "@COMMANDS@": "\n".join(f"        {quote(f'{one.name}:{one.text}')}" for one in others),
        "@OPTIONS@": "\n".join(f"        {line} \\" for line in _options(tabi)),
        "@CASES@": "\n".join(_case(one) for one in others),
    }
    text = _SCRIPT
    for place, filling in places.items():
        text = text.replace(place, filling)
    return text


def _case(command: Command) -> str:
    lines = [*_options(command), *(_argument(one) for one in command.arguments)]
    if any(one.value.takes is Takes.PROGRAM for one in command.arguments):
        lines.insert(0, "-A '-*'")  # options behind the program are its own
    indented = "".join(f" \\\n                {line}" for line in lines)
    return f"        {command.name})\n            _arguments -S{indented} ;;"


def _options(command: Command) -> Iterator[str]:
    for option in command.options:
        for name in option.names:
            yield quote(_option(option, name))


def _option(option: Option, name: str) -> str:
    if option.is_repeated:
        before = "*"
    else:
        before = "(- *)" if name in ("-h", "--help", "--version") and option.value is None else ""
        before = before or f"({' '.join(option.names)})"
    text = _escaped(option.text, "[]")
    if option.value is None:
        return f"{before}{name}[{text}]"
    joined = "=" if name.startswith("--") else "+"
    return f"{before}{name}{joined}[{text}]:{_value(option.value)}"


def _argument(argument: Argument) -> str:
    if argument.value.takes is Takes.PROGRAM:
        return "'(-)*:: :_tabi_program'"
    return quote(f"{'*' if argument.is_repeated else ''}:{_value(argument.value)}")


def _value(value: Value) -> str:
    name = _escaped(value.name, ":")
    match value.takes:
        case Takes.CHOICE:
            return f"{name}:({' '.join(value.choices)})"
        case Takes.FILE:
            return f"{name}:_files"
        case Takes.PROXY:
            return f"{name}:_tabi_proxies"
        case Takes.USER:
            return f"{name}:_users"
        case _:
            return f"{name}: "


def _escaped(text: str, special: str) -> str:
    return "".join(f"\\{one}" if one in special else one for one in text.replace("\\", "\\\\"))
