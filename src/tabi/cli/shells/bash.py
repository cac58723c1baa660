"""Completion for bash, 4.3 or newer. It needs no bash-completion, but has it complete the arguments of programs.

bash takes words apart at colons, equals signs and at signs too, but leaves it to us to complete the whole of them.
"""

from collections.abc import Iterable, Iterator
from shlex import quote

from tabi.cli.outline import Command, Takes, Value

__all__ = ["script"]

_SCRIPT = """\
# Completion of tabi for bash, as `tabi completion bash` prints it.

# What there is: sets options, and valued, those that a value follows.
_tabi_known() {
    case $1 in
@KNOWN@
    esac
}

# Complete $cur as what $1 says: a command and its option, or a command and the number of its argument.
_tabi_value() {
    case $1 in
@VALUES@
    esac
}

_tabi_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}

_tabi_proxies() {
    local file
    compopt -o nospace 2>/dev/null
    if [[ $cur != @* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '@SCHEMES@ @' -- "$cur")
        return
    fi
    while IFS= read -r file; do
        if [[ -d $file ]]; then file+=/; else file+=' '; fi
        COMPREPLY+=("@$file")
    done < <(compgen -f -- "${cur#@}")
}

_tabi_program() {
    if ((${#words[@]} - 1 == program)); then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -c -- "$cur")
    elif declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "${starts[program]}"
    elif declare -F _command_offset >/dev/null; then
        _command_offset "${starts[program]}"
    else
        _tabi_files
    fi
}

# Take the line apart at blanks only: sets words up to the cursor, and in starts where bash has their beginnings.
_tabi_words() {
    local line=${COMP_LINE:0:COMP_POINT} i piece
    words=() starts=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        if ((i == 0)) || [[ $line == [[:blank:]]* ]]; then
            line=${line#"${line%%[![:blank:]]*}"}
            words+=('') starts+=("$i")
        fi
        ((i < COMP_CWORD)) || piece=$line
        words[-1]+=$piece
        line=${line#"$piece"}
    done
}

# Read the words before the cursor: sets command, count of arguments, option that waits for its value, and program.
_tabi_read() {
    local i word
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        word=${words[i]}
        if [[ $option ]]; then
            option=
        elif [[ $literal || $word != -?* ]]; then
            if [[ ! $command ]]; then
                command=$word
                _tabi_known "$command"
            elif [[ $command == @WRAPPERS@ ]]; then
                program=$i
                return
            else
                ((count += 1))
            fi
        elif [[ $word == -- ]]; then
            literal=yes
        elif [[ " $valued " == *" $word "* ]]; then
            option=$word
        fi
    done
    [[ $command != @WRAPPERS@ ]] || program=$i
}

_tabi() {
    local -a words starts
    local options= valued= command= option= literal= program= count=0 cur whole lead= i
    _tabi_words
    _tabi_known ''
    _tabi_read
    whole=${words[-1]} cur=${words[-1]} COMPREPLY=()
    if [[ $option ]]; then
        _tabi_value "$command $option"
    elif [[ ! $literal && $cur == --*=* && " $valued " == *" ${cur%%=*} "* ]]; then
        lead=${cur%%=*}= cur=${cur#*=}
        _tabi_value "$command ${lead%=}"
    elif [[ $program && ($literal || $cur != -* || $program -lt ${#words[@]}-1) ]]; then
        _tabi_program
    elif [[ $cur == -* && ! $literal ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    elif [[ $command ]]; then
        _tabi_value "$command $count"
    else
        mapfile -t COMPREPLY < <(compgen -W '@COMMANDS@' -- "$cur")
    fi
    # Of a word that bash takes apart only the last part is replaced.
    for i in "${!COMPREPLY[@]}"; do
        COMPREPLY[i]=$lead${COMPREPLY[i]}
        COMPREPLY[i]=${COMPREPLY[i]#"${whole%"$2"}"}
    done
}

complete -F _tabi tabi
"""


def script(commands: tuple[Command, ...], schemes: Iterable[str]) -> str:
    """Write the script.

    Args:
        commands: the outline.
        schemes: of proxy URLs.
    """
    wrappers = [one.name for one in commands if any(each.value.takes is Takes.PROGRAM for each in one.arguments)]
    places = {
        "@KNOWN@": "\n".join(_known(commands)),
        "@VALUES@": "\n".join(_values(commands)),
        "@SCHEMES@": " ".join(f"{scheme}://" for scheme in schemes),
        "@WRAPPERS@": f"@({'|'.join(wrappers)})",
        "@COMMANDS@": " ".join(one.name for one in commands if one.name),
    }
    text = _SCRIPT
    for place, filling in places.items():
        text = text.replace(place, filling)
    return text


def _known(commands: tuple[Command, ...]) -> Iterator[str]:
    for command in commands:
        options = " ".join(name for option in command.options for name in option.names)
        valued = " ".join(name for option in command.options if option.value for name in option.names)
        yield f"        {quote(command.name)}) options={quote(options)} valued={quote(valued)} ;;"


def _values(commands: tuple[Command, ...]) -> Iterator[str]:
    for command in commands:
        for option in command.options:
            if option.value is not None and (action := _action(option.value)):
                pattern = "|".join(quote(f"{command.name} {name}") for name in option.names)
                yield f"        {pattern}) {action} ;;"
        for number, argument in enumerate(command.arguments):
            if action := _action(argument.value):
                pattern = quote(f"{command.name} ") + "*" if argument.is_repeated else quote(f"{command.name} {number}")
                yield f"        {pattern}) {action} ;;"


def _action(value: Value) -> str:
    """Give what completes a value; nothing where nothing can, and for programs, which have their own place."""
    match value.takes:
        case Takes.CHOICE:
            return f"mapfile -t COMPREPLY < <(compgen -W {quote(' '.join(value.choices))} -- \"$cur\")"
        case Takes.USER:
            return 'mapfile -t COMPREPLY < <(compgen -u -- "$cur")'
        case Takes.FILE:
            return "_tabi_files"
        case Takes.PROXY:
            return "_tabi_proxies"
        case _:
            return ""
