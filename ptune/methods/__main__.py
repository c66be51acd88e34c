"""`python -m ptune.methods [NAME]`: the methods, or the options of one."""

import sys

from ptune.errors import InputError, nearest
from ptune.run import catalog, command


def text(args: list[str]) -> str:
    """The methods with what each trains; the options of the one that is named."""
    if not args:
        return command.listed("model")
    found = catalog.classes("model")
    if len(args) > 1 or args[0] not in found:
        raise InputError(f"no method {' '.join(args)!r}, {nearest(args[0], found)}")
    return command.class_help("model", found[args[0]])


def main(args: list[str] | None = None) -> int:
    """Print them; the exit code: 0, or 2 for a name that is none."""
    args = sys.argv[1:] if args is None else args
    return command.printed(lambda: text([word for word in args if word not in ("-h", "--help")]))


if __name__ == "__main__":
    sys.exit(main())
