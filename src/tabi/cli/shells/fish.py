"""Completion for fish."""

from collections.abc import Iterable, Iterator

from tabi.cli.outline import Command, Option, Takes, Value

__all__ = ["script"]

_SCRIPT = """\
# Completion of tabi for fish, as `tabi completion fish` prints it.

# The command and the number of the argument that is being typed; for a program its words so far instead of the number.
function __tabi_place
    set -l words (commandline -opc)
    set -e words[1]
    set -l command ''
    set -l count 0
    set -l literal no
    set -l valued
    while set -q words[1]
        set -l word $words[1]
        if test $literal = no; and string match -q -- '-?*' $word
            if test "$word" = --
                set literal yes
            else if contains -- "$word" $valued
                set -e words[1]
            end
        else if test -z "$command"
            set command $word
            switch $command
@VALUED@
            end
        else if contains -- "$command" @WRAPPERS@
            printf '%s\\n' $command $words
            return
        else
            set count (math $count + 1)
        end
        set -e words[1]
    end
    printf '%s\\n' $command $count
end

# Whether the command is $argv[1], empty for none yet, and its argument number $argv[2], if that is given.
function __tabi_is
    set -l place (__tabi_place)
    test "$place[1]" = "$argv[1]"; or return
    test (count $argv) -lt 2; or test "$place[2]" = "$argv[2]"
end

function __tabi_takes_program
    set -l place (__tabi_place)
    contains -- "$place[1]" @WRAPPERS@
end

function __tabi_program
    set -l words (__tabi_place)[2..]
    test "$words" = 0; and set -e words
    complete --do-complete=(string join ' ' -- (string escape -- $words) (commandline -ct))
end

function __tabi_proxies
    set -l typed (string replace -r '^(-x|--proxy=)' '' -- (commandline -ct))
    if string match -q '@*' -- $typed
        printf '@%s\\n' (__fish_complete_path (string sub -s 2 -- $typed))
    else
        printf '%s\\n' @SCHEMES@ @
    end
end

complete -c tabi -f
@LINES@
"""


def script(commands: tuple[Command, ...], schemes: Iterable[str]) -> str:
    """Write the script.

    Args:
        commands: the outline.
        schemes: of proxy URLs.
    """
    wrappers = [one.name for one in commands if any(each.value.takes is Takes.PROGRAM for each in one.arguments)]
    names = (f"complete -c tabi -n '__tabi_is \"\"' -a {one.name} -d {_quoted(one.text)}" for one in commands[1:])
    places = {
        "@VALUED@": "\n".join(_valued(commands)),
        "@WRAPPERS@": " ".join(wrappers),
        "@SCHEMES@": " ".join(f"{scheme}://" for scheme in schemes),
        "@LINES@": "\n".join([*names, *(line for one in commands for line in _lines(one))]),
    }
    text = _SCRIPT
    for place, filling in places.items():
        text = text.replace(place, filling)
    return text


def _valued(commands: tuple[Command, ...]) -> Iterator[str]:
    for command in commands:
        names = " ".join(name for option in command.options if option.value for name in option.names)
        if names:
            yield f"                case {command.name}\n                    set valued {names}"


def _lines(command: Command) -> Iterator[str]:
    name = command.name or '""'
    wraps = any(argument.value.takes is Takes.PROGRAM for argument in command.arguments)
    here = f"{name} 0" if wraps else name  # options behind the program are its own
    for option in command.options:
        yield f"complete -c tabi -n '__tabi_is {here}' {_names(option)}{_offer(option.value)} -d {_quoted(option.text)}"
    for number, argument in enumerate(command.arguments):
        if wraps:
            yield "complete -c tabi -n __tabi_takes_program -x -a '(__tabi_program)'"
        elif offer := _offer(argument.value).removeprefix(" -x").removeprefix(" -r"):
            place = name if argument.is_repeated else f"{name} {number}"
            yield f"complete -c tabi -n '__tabi_is {place}'{offer} -d {_quoted(argument.text)}"


def _names(option: Option) -> str:
    return " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)


def _offer(value: Value | None) -> str:
    if value is None:
        return ""
    match value.takes:
        case Takes.CHOICE:
            return f" -x -a {_quoted(' '.join(value.choices))}"
        case Takes.FILE:
            return " -r -F"
        case Takes.PROXY:
            return " -x -a '(__tabi_proxies)'"
        case Takes.USER:
            return " -x -a '(__fish_complete_users)'"
        case _:
            return " -x"


def _quoted(text: str) -> str:
    """Quote a word as fish has it: between quotes only the quote and the backslash mean something."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
