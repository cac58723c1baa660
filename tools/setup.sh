#!/bin/sh
# Make .venv ready.
#
#   tools/setup.sh serve     what `tabi serve` needs: an interpreter and tabi itself, editable, with its extra `server`
#   tools/setup.sh dev       that, and all that tests, checks and releases need
#
# PYTHON=… chooses the interpreter. A second run with nothing changed ends after a few milliseconds; a run that was
# interrupted is taken up by the next. No C compiler is needed; where there is one, and Python.h, the compiled relay
# engine is built, and built anew when its source changes.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv
cd "$root"

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# --- which interpreter ------------------------------------------------------------------------------------------

# An interpreter is run, not only looked up: the shims of version managers exist for versions that do not.
is_adequate() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
can_make_venvs() { "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

# Print the newest interpreter that can make a virtual environment, else the newest at all.
find_python() {
    if [ -n "${PYTHON-}" ]; then
        has "$PYTHON" || die "PYTHON=$PYTHON is not a program that can be run"
        is_adequate "$PYTHON" || die "PYTHON=$PYTHON is older than Python 3.11"
        printf '%s\n' "$PYTHON"
        return 0
    fi
    fallback=
    for candidate in python3.13 python3.12 python3.11 python3; do
        if has "$candidate" && is_adequate "$candidate"; then
            if can_make_venvs "$candidate"; then
                printf '%s\n' "$candidate"
                return 0
            fi
            fallback=${fallback:-$candidate}
        fi
    done
    [ -n "$fallback" ] || die "Python 3.11 or newer is missing. On Debian 12 or newer: apt-get install python3 python3-venv
(or name an interpreter: make setup PYTHON=/path/to/python3)"
    printf '%s\n' "$fallback"
}

# Debian takes ensurepip out of python3 and puts it into a package of its own.
require_venv_module() {
    if can_make_venvs "$1"; then return 0; fi
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    package=python$version-venv
    if ! has apt-get; then
        die "the modules venv and ensurepip of $1 (Python $version) are missing; install them by this system's own means"
    fi
    if [ "$(id -u)" -ne 0 ]; then
        die "$1 cannot make virtual environments: the package $package is missing. As root: apt-get install $package"
    fi
    say "$1 cannot make virtual environments; we are root, so: apt-get install $package"
    install_package "$package" || { apt-get update >&2 && install_package "$package"; } ||
        die "apt-get could not install it. By hand: apt-get update && apt-get install $package"
    can_make_venvs "$1" || die "$package is installed, yet $1 still cannot make virtual environments"
}

install_package() { DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$1" >&2; }

# --- the virtual environment ------------------------------------------------------------------------------------

# The home file is written last, so it says that the environment is whole, and for which checkout and interpreter:
# one that was copied along with its tree would still run the tree that it came from.
identity() { "$1" -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null | tr '\n' ' '; }

venv_is_whole() {
    [ -x "$venv/bin/python" ] && [ -f "$venv/.tabi-home" ] && [ ! -e "$venv/.tabi-busy" ] || return 1
    [ "$(head -n 1 "$venv/.tabi-home")" = "$root" ] || return 1
    current=$(identity "$venv/bin/python")
    [ -n "$current" ] && [ "$(sed -n 2p "$venv/.tabi-home")" = "$current" ] || return 1
    [ -z "${PYTHON-}" ] || [ "$(identity "$PYTHON")" = "$current" ]
}

make_venv() {
    if venv_is_whole; then return 0; fi
    python=$(find_python)
    require_venv_module "$python"
    if [ -e "$venv" ]; then say ".venv is unfinished, of another place or of another Python; it is made anew"; fi
    say "making .venv with $python ($("$python" --version 2>&1))"
    rm -rf "$venv"
    "$python" -m venv "$venv" || die "$python -m venv failed"
    { printf '%s\n' "$root"; identity "$venv/bin/python"; echo; } >"$venv/.tabi-home.new"
    mv "$venv/.tabi-home.new" "$venv/.tabi-home"
}

# --- what is installed in it ------------------------------------------------------------------------------------

inputs() { cat pyproject.toml meson.build tools/setup.sh tools/build_backend.py | sha256sum; }

is_done() { [ -f "$venv/.tabi-$1" ] && [ "$(cat "$venv/.tabi-$1")" = "$checksum" ]; }
mark_done() { printf '%s\n' "$checksum" >"$venv/.tabi-$1"; }

# A pip that is killed leaves packages half written, which a later pip takes for whole; one that fails by itself
# puts back what was there. So the busy file outlives the first and not the second.
pip() {
    : >"$venv/.tabi-busy"
    code=0
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@" || code=$?
    if [ "$code" -lt 128 ]; then rm -f "$venv/.tabi-busy"; fi
    [ "$code" -eq 0 ] || die "pip failed ($code): pip $*
What pip installs comes from the package index that this machine's pip is configured for; is it within reach?"
}

install_tabi() {
    if is_done serve && [ -x "$venv/bin/tabi" ]; then return 0; fi
    say "installing tabi, editable"
    # in a subshell: without the extra tabi serves as well, only no users with passwords
    if ! (pip install --editable '.[server]'); then
        say "argon2-cffi, which users with passwords need, cannot be had now; going on without"
        pip install --editable .
    fi
    mark_done serve
}

install_dev() {
    if is_done dev; then return 0; fi
    say "installing what tests and checks need (pyproject.toml, group dev)"
    pip install --upgrade 'pip >= 25.1' # the first that reads dependency groups; Debian 12 has 23.0
    pip install --group dev
    mark_done dev
}

# --- the compiled engine ----------------------------------------------------------------------------------------

# It is made of sources that change often, so it has a mark of its own.
engine_inputs() {
    { inputs; cat meson.options tools/build_engine.py tools/cythonize.py tools/engine_sources.py src/tabi/relay/_sources.py \
        src/tabi/relay/*.pyx src/tabi/relay/_native/*.px[di]; } | sha256sum
}

engine_is_done() { [ -f "$venv/.tabi-engine" ] && [ "$(cat "$venv/.tabi-engine")" = "$engine_checksum" ] && has_engine; }

# Without a compiler there is none, and that is as good as done until there is one.
has_engine() {
    if can_compile; then ls src/tabi/relay/_engine.*.so src/tabi/relay/_ferry.*.so >/dev/null 2>&1; fi
}

can_compile() {
    if ! has "${CC:-cc}"; then return 1; fi
    include=$(cat "$venv/.tabi-include" 2>/dev/null) || return 1
    [ -f "$include/Python.h" ]
}

# Whoever only wants to run the server is served all the same.
engine_failed() {
    cat "$venv/engine.log" >&2
    [ "$1" = serve ] || die "the compiled engine could not be built (above is why)"
    say "the compiled engine could not be built (above is why): tabi relays by its engine in pure Python"
}

build_engine() {
    [ -f "$venv/.tabi-include" ] ||
        "$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))' >"$venv/.tabi-include"
    if engine_is_done; then return 0; fi
    rm -f src/tabi/relay/_engine.*.so src/tabi/relay/_ferry.*.so # rather none than an old one
    if can_compile; then
        say "building the compiled relay engine"
        requires=$("$venv/bin/python" -c '
import tomllib
for line in tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"]: print(line.replace(" ", ""))')
        # shellcheck disable=SC2086  # a list of requirements without blanks, meant to be split
        pip install $requires
        "$venv/bin/python" tools/build_engine.py >"$venv/engine.log" 2>&1 ||
            engine_failed "$1"
    else
        say "no C compiler, or no Python.h: tabi relays by its engine in pure Python. For the compiled one, which needs
       less processor time: apt-get install gcc python3-dev (or what this system calls them), then make setup"
    fi
    printf '%s\n' "$engine_checksum" >"$venv/.tabi-engine"
}

[ "${1-}" = serve ] || [ "${1-}" = dev ] || die "usage: tools/setup.sh serve|dev"
checksum=$(inputs)
engine_checksum=$(engine_inputs)
if venv_is_whole && is_done serve && [ -x "$venv/bin/tabi" ] && { [ "$1" = serve ] || is_done dev; } &&
    engine_is_done; then
    exit 0
fi
# Two runs side by side would tread on each other; the second waits and then finds the work done. This very file is
# the lock, so that none is left lying about.
exec 9<tools/setup.sh
if has flock; then flock 9; fi
make_venv
install_tabi
if [ "$1" = dev ]; then install_dev; fi
build_engine "$1"
say "ready: .venv/bin/tabi"
