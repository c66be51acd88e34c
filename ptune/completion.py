"""`python -m ptune.completion bash|zsh`: print the shell's completion of commands, options, methods, formats and tasks.

eval "$(ptune completion bash)"
"""

import argparse
import sys

import shtab

from ptune.run import catalog, command
from ptune.run.known import OWN, known_options
from ptune.tasks import all_tasks


def parser() -> argparse.ArgumentParser:
    """All that can be completed, as an argparse parser, which is read and never run."""
    found = argparse.ArgumentParser("ptune", add_help=False)
    choices = {group: list(catalog.classes(group)) for group in catalog.GROUPS} | {"data.task": list(all_tasks())}
    subparsers = found.add_subparsers()
    for name, what in catalog.commands().items():
        sub = subparsers.add_parser(name, help=what, add_help=False)
        if name not in command.EXAMPLES:
            continue
        for option in dict.fromkeys((*OWN, *known_options())):
            sub.add_argument(f"--{option}", choices=choices.get(option))
    return found


def run(args: list[str]) -> str:
    """The script of the shell that is named."""
    arguments = command.Arguments("python -m ptune.completion", description="Print a shell's completion script.")
    arguments.add_argument("shell", choices=("bash", "zsh"), help="the shell")
    return shtab.complete(parser(), arguments.parse_args(args).shell)


def main(args: list[str] | None = None) -> int:
    """Print it; the exit code: 0, or 2 for a shell that is none."""
    return command.printed(lambda: run(sys.argv[1:] if args is None else args))


if __name__ == "__main__":
    sys.exit(main())
