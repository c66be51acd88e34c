"""`python -m ptune.evaluate`: the metrics of a trained run's checkpoint, or of a method that trains nothing.

    python -m ptune.evaluate --config experiments/lecture/manual.yaml
    python -m ptune.evaluate --config runs/x/config.yaml --run_dir runs/x [--ckpt_path last]

The table is printed and everything written to `evaluation.json` in the run directory (`evaluation-2.json` where there
is one). Options may differ from the run's: other data, another length limit, another device.
"""

import sys

from ptune.run.cli import Evaluation, guarded
from ptune.run.result import table, write_evaluation


def run(args: list[str] | None) -> None:
    """Evaluate on every labelled split."""
    cli = Evaluation.of(args)
    result = cli.evaluate()
    if cli.trainer.is_global_zero:
        write_evaluation(cli, result)
        print(table(result))


def main(args: list[str] | None = None) -> int:
    """Run the command line `args`; the exit code: 0, or 2 for a mistake in the input, told in one sentence."""
    return guarded(run, args)


if __name__ == "__main__":
    sys.exit(main())
