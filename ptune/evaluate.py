"""`python -m ptune.evaluate`: the metrics of a trained run's checkpoint, or of a method that trains nothing.

    python -m ptune.evaluate runs/x [--ckpt_path last] [--data.path other/] [--run_dir runs/other]
    python -m ptune.evaluate --config experiments/lecture/manual.yaml

The table is printed and everything written to `evaluation.json` in the run directory (`evaluation-2.json` where there
is one), or in another one, if `--run_dir` is given. Options after the run's directory win over its own: other data,
another length limit, another device. The directory is read as data; nothing of it is executed without `--trust`.
"""

import sys
from functools import partial
from pathlib import Path

from ptune.errors import InputError
from ptune.run import command, directory
from ptune.run.arguments import prepare

PURPOSE = "Evaluate a run's best checkpoint, or a method that trains nothing, on every labelled split."


def run(args: list[str], source: str | None = None) -> command.Result:
    """Options, checkpoint (of the run directory `source`), data, evaluation; what `evaluation.json` holds."""
    # These take seconds to import: only when the options are known to exist.
    from ptune.run import checkpoints, disk, folder, result
    from ptune.run.cli import CLI

    cli = CLI.of(args)
    model, data, run_dir = cli.model, cli.datamodule, cli.run_dir
    given, checkpoint = cli.config.ckpt_path, None
    if model.trains:
        home = source or run_dir
        path = f"{home}/{given or 'best'}.ckpt" if given in (None, "best", "last") else given
        checkpoint = checkpoints.read(Path(path), Path(home))
    elif given:
        raise InputError(f"ckpt_path: {type(model).__name__} trains nothing and has no checkpoint.")
    data.setup("validate")
    trainer = cli.build_trainer(run_dir, [], [])
    folder.make(run_dir)
    model.configure_model()
    model.check_data(data)
    progress = result.UNTRAINED
    if checkpoint is None and trainer.is_global_zero:
        folder.begin(run_dir, cli.resolved(), trainer, cli.wandb, cli.columns())
    if checkpoint is not None:
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"], strict=False)  # it holds trained tensors only
        epoch = checkpoint["epoch"] + 1
        progress = result.Progress(checkpoint["global_step"], epoch, epoch, result.UNTRAINED.work)
    measured = cli.run(trainer)
    found = result.report(measured, progress)
    if trainer.is_global_zero:
        with disk.told(run_dir, "make room, or choose another --run_dir."):
            result.write_evaluation(measured, found)
        print(result.table(found))
    return result.plain(found)


def words(args: list[str]) -> list[str]:
    """The checked command line; that of a run, with the further options, where a run directory comes first."""
    if args[0].startswith("-"):
        return prepare(args)
    return directory.words(args[0], [word for word in args[1:] if word != "--trust"], "--trust" in args)


def main(args: list[str] | None = None) -> command.Result | None:
    """Run the command line `args`, `sys.argv` by default; what `evaluation.json` holds, None for help.

    Raises:
        SystemExit: with the exit code of a command that does not end well, after one sentence on stderr: 2 for a
            mistake in the input.
    """
    args = sys.argv[1:] if args is None else args
    source = next((word for word in args[:1] if not word.startswith("-")), None)
    return command.main("evaluate", PURPOSE, partial(run, source=source), args, words)


if __name__ == "__main__":
    main()
