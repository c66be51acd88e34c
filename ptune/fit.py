"""`python -m ptune.fit`: train one method on one task, evaluate the best checkpoint, leave everything in `run_dir`."""

import sys

from ptune.run.cli import command


def main(args: list[str] | None = None) -> int:
    """Run the command line `args`; the exit code: 0, or 2 for a mistake in the input, told in one sentence."""
    return command(args)


if __name__ == "__main__":
    sys.exit(main())
