"""The generator as seen from Python: build it, run it, hold its target open.

The program is C (`generator/`, whose README tells modes and options); here it is compiled where that has not been done
since its sources changed, and each run gives the one JSON object that it prints.
"""

import hashlib
import json
import os
import random
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

__all__ = ["BASE_PORTS", "GeneratorError", "Target", "build", "command", "compiler", "run"]

SOURCES = Path(__file__).with_name("generator")
_BUILT = Path(__file__).parents[2] / "build" / "bench"
_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra")
BASE_PORTS = range(12_000, 30_000)
"""Where a target's ports may begin: below those that the kernel gives to clients (ip_local_port_range)."""


class GeneratorError(Exception):
    """A run came to nothing; the text says why.

    Attributes:
        is_ours: whether it was this machine or the command line; otherwise it was the proxy.
    """

    def __init__(self, text: str, *, is_ours: bool) -> None:
        super().__init__(text)
        self.is_ours = is_ours


def compiler() -> str | None:
    """Give the C compiler: $CC, else the first that is there, else None."""
    return os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def build(cc: str, *, flags: Sequence[str] = (), into: Path = _BUILT) -> Path:
    """Compile the generator, unless these very sources were compiled so before, and return the program.

    Raises:
        GeneratorError: the compiler refused; the text is what it said.
    """
    sources = sorted(SOURCES.glob("*.[ch]"))
    call = [*shlex.split(cc), *_FLAGS, *flags]
    mark = hashlib.sha256("\0".join([*call, *(one.read_text() for one in sources)]).encode()).hexdigest()[:12]
    program = into / f"generator-{mark}"
    if program.exists():
        return program
    into.mkdir(parents=True, exist_ok=True)
    # Two runs may compile side by side: each into a file of its own, and the last one's name stays.
    handle, scratch = tempfile.mkstemp(dir=into)
    os.close(handle)
    files = [str(one) for one in sources if one.suffix == ".c"]
    try:
        done = subprocess.run([*call, "-o", scratch, *files, "-lm"], capture_output=True, text=True, check=False)
    except OSError as error:
        os.unlink(scratch)
        raise GeneratorError(f"the C compiler {cc!r} cannot be run: {error.strerror}", is_ours=True) from error
    if done.returncode:
        os.unlink(scratch)
        raise GeneratorError(f"the generator does not compile:\n{done.stderr.strip()}", is_ours=True)
    os.chmod(scratch, 0o755)
    os.replace(scratch, program)
    return program


def command(program: Path | str, mode: str, *, tree: Sequence[int] = (), **options: object) -> list[str]:
    """Write a command line; an option that is None is left out, True is a flag.

    >>> command("generator", "idle", count=9, sendfile=True, echo_ports=2)
    ['generator', 'idle', '--count', '9', '--sendfile', '--echo-ports', '2']
    """
    line = [str(program), mode]
    for name, value in options.items():
        if value is not None and value is not False:
            line += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    for process in tree:
        line += ["--tree", str(process)]
    return line


def run(line: Sequence[str], *, patience: float = 120.0) -> dict[str, Any]:
    """Run a command of `command` to its end and give the object that it prints.

    Args:
        patience: seconds after which it is killed; it ends by itself long before.

    Raises:
        GeneratorError: it said why there is no result.
    """
    try:
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        raise GeneratorError(f"the generator did not end within {patience:g} s", is_ours=True) from None
    if done.returncode:
        text = done.stderr.strip().removeprefix("generator: ") or f"ended with {done.returncode}"
        raise GeneratorError(text, is_ours=done.returncode != 3)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Target:
    """The other end, in a process of its own: it ends with the `with` block, and with us, however we end.

    Args:
        program: from `build`.
        port: base port; without it one is found whose neighbours are free as well.
        targets: addresses, from 127.0.0.1 on.
        echo_ports: on each.
        seconds: after which it ends, whatever happens.
        prefix: a command that runs it as another user or on certain cores.
    """

    def __init__(
        self,
        program: Path,
        *,
        port: int | None = None,
        targets: int = 32,
        echo_ports: int = 1,
        seconds: float = 3600,
        prefix: Sequence[str] = (),
    ) -> None:
        self._ports = [port] if port else random.sample(BASE_PORTS, 20)
        line = command(program, "target", targets=targets, echo_ports=echo_ports, seconds=seconds)
        self._line = [*prefix, *line]
        self.port = 0

    def __enter__(self) -> Self:
        said = ""
        for port in self._ports:
            process = subprocess.Popen(
                [*self._line, "--port", str(port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            if process.stdout.readline():
                self.port, self._process = port, process
                return self
            _, said = process.communicate()
        raise GeneratorError(said.strip().removeprefix("generator: "), is_ours=True)

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # the end of its standard input is the end of it
