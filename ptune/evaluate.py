"""`python -m ptune.evaluate`: the metrics of a trained run's checkpoint, or of a method that trains nothing.

A finished run that keeps no checkpoints is measured with its `prompts.safetensors`, which holds the best tensors.

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


def run(args: list[str], given: list[str], source: str | None = None) -> command.Result | None:
    """Options, checkpoint, data, evaluation; what `evaluation.json` holds.

    Args:
        args: the checked command line.
        given: the command line as the user has given it.
        source: the run directory whose checkpoint is evaluated.
    """
    # These take seconds to import: only when the options are known to exist.
    from ptune.run import checkpoints, disk, folder, loggers, machine, result, uploads
    from ptune.run.cli import CLI

    cli, about = CLI.of(args), machine.about("evaluate", given)
    model, data, run_dir = cli.model, cli.datamodule, cli.run_dir
    asked, checkpoint, path = cli.config.ckpt_path, None, None
    if model.trains:
        home = source or run_dir
        path = Path(home, f"{asked or 'best'}.ckpt") if asked in (None, "best", "last") else Path(asked)
        prompts = path.with_name("prompts.safetensors")
        if asked is None and not path.is_file() and prompts.is_file():  # all that --keep_checkpoints false leaves
            path = prompts
        else:
            checkpoint = checkpoints.read(path, Path(home))
    elif asked:
        raise InputError(f"ckpt_path: {type(model).__name__} trains nothing and has no checkpoint.")
    data.setup("validate")
    trainer = cli.build_trainer(run_dir, [], [])
    folder.make(run_dir)
    if path is not None and checkpoint is None:
        model.load_prompts(path)
    model.configure_model()
    model.check_data(data)
    progress = result.UNTRAINED if path is None else result.progress_of(path)
    if checkpoint is not None:
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"], strict=False)  # it holds trained tensors only
        epoch = checkpoint["epoch"] + 1
        chosen = 0 if path.name == "last.ckpt" else epoch  # type: ignore[union-attr]  # by a validation
        progress = result.Progress(checkpoint["global_step"], epoch, chosen, result.UNTRAINED.work)
    measured = cli.run(trainer, about)
    with loggers.told():
        if path is None and trainer.is_global_zero:
            folder.begin(cli, cli.resolved, trainer)
        found = result.report(measured, progress)
    if path is not None:
        found = result.of_checkpoint(found, path)
    if not trainer.is_global_zero:
        return None
    with disk.told(run_dir, "make room, or choose another --run_dir."):
        kept = result.write_evaluation(measured, found)
    print(result.table(found), flush=True)
    uploads.upload(measured, kept, cli.config.wandb.samples)
    return kept


def words(args: list[str]) -> list[str]:
    """The checked command line; that of a run, with the further options, where a run directory comes first."""
    if args[0].startswith("-"):
        names = [word.partition("=")[0] for word in args]
        if "--run_dir" in names and not {"--model", "--config", "-c"} & {*names}:
            raise InputError("--run_dir: is the folder of a new measurement; to measure a run, ptune evaluate RUN_DIR.")
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
    return command.main("evaluate", PURPOSE, partial(run, given=args, source=source), args, words)


if __name__ == "__main__":
    main()
