"""`ptune COMMAND ...`, also `python -m ptune COMMAND ...`: every command of ptune by its name.

A command is a module at the top of ptune with a `main`, or a package with a `__main__`; nothing lists them.
"""

import os
import sys
from importlib import import_module
from pathlib import Path

import ptune
from ptune.errors import InputError, nearest
from ptune.run.catalog import commands
from ptune.run.command import guarded


def usage() -> str:
    """The commands and what they do."""
    found = commands()
    width = max(map(len, found)) + 2
    rows = "\n".join(f"  {name:<{width}}{what}" for name, what in found.items())
    end = "ptune COMMAND --help explains one; `ptune fit` is the same as `python -m ptune.fit`."
    return f"usage: ptune COMMAND [OPTIONS]\n\n{rows}\n\n{end}"


def main(args: list[str] | None = None) -> int:
    """Run a command; the exit code: 0, or 2 for a mistake in the input, told in one sentence."""
    name, *rest = (sys.argv[1:] if args is None else args) or [""]
    if name in ("", "-h", "--help"):
        print(usage())
        return 0 if name else 2
    if name == "--version":
        print(ptune.__version__)
        return 0
    if name not in commands():
        return guarded(lambda: _refuse(name))
    package = Path(ptune.__path__[0], name, "__main__.py").is_file()
    command = import_module(f"ptune.{name}.__main__" if package else f"ptune.{name}").main
    if os.getcwd() not in sys.path:  # so that a class of the user's own is found as by `python -m ptune.fit`
        sys.path.append(os.getcwd())
    try:
        done = command(rest)
    except SystemExit as end:
        return int(end.code or 0)
    return done if isinstance(done, int) else 0  # fit and evaluate return what they have measured


def _refuse(name: str) -> None:
    raise InputError(f"no command {name!r}, {nearest(name, commands())}")


if __name__ == "__main__":
    sys.exit(main())
