"""``tabi completion``: print a script that has a shell complete the command line of tabi."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tabi.cli.main import Commands

__all__ = ["SHELLS", "add_parser", "run"]

SHELLS = ("bash", "zsh", "fish")

_EPILOG = """\
Where the output goes:
  bash   tabi completion bash > ~/.local/share/bash-completion/completions/tabi
         without bash-completion, in ~/.bashrc:  source <(tabi completion bash)
  zsh    tabi completion zsh > ~/.zfunc/_tabi
         with this in ~/.zshrc, before compinit:  fpath=(~/.zfunc $fpath)
  fish   tabi completion fish > ~/.config/fish/completions/tabi.fish

Make the directory where there is none, and begin a new shell. The script does not start tabi: print it anew after an
update. Commands, options, choices, files and proxies (URL or @FILE) are completed, and behind `tabi run --` programs.
"""


def add_parser(commands: "Commands") -> None:
    """Register the command."""
    parser = commands.add_parser(
        "completion",
        help="print what has a shell complete tabi's commands and options",
        description="Print what has a shell complete tabi's commands and options.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from importlib import import_module

    from tabi.cli.main import build_parser
    from tabi.cli.outline import outline
    from tabi.machine.hop import Scheme

    writer = import_module(f"tabi.cli.shells.{arguments.shell}")
    print(writer.script(outline(build_parser()), [scheme.value for scheme in Scheme]), end="")
    return 0
