"""`python -m ptune.fit`: train one method on one task, evaluate the best checkpoint, leave everything in `run_dir`."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ptune.errors import InputError
from ptune.run import command

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

PURPOSE = "Train one method on one task, evaluate the best checkpoint, leave everything in run_dir."


def run(args: list[str], given: list[str], more: Sequence["Callback"] = ()) -> command.Result | None:
    """The life of a run: options, data, directory, training, evaluation, result; what `result.json` holds.

    Args:
        args: the checked command line.
        given: the command line as the user has given it.
        more: callbacks of a caller in Python.
    """
    # These take seconds to import: only when the options are known to exist.
    from lightning.pytorch import Trainer
    from lightning.pytorch.callbacks import LearningRateMonitor

    from ptune.run import callbacks, disk, folder, loggers, machine, result, same, slurm, uploads
    from ptune.run.checkpoints import RunCheckpoint
    from ptune.run.cli import CLI
    from ptune.run.compiled import Compiled
    from ptune.run.finite import Finite
    from ptune.run.frozen import FrozenLayers
    from ptune.run.history import History
    from ptune.run.metrics_log import MetricsLog
    from ptune.run.signals import StopAtStep
    from ptune.run.workers import Workers

    cli, about = CLI.of(args), machine.about("fit", given)
    model, data, run_dir = cli.model, cli.datamodule, cli.run_dir
    if not model.trains:
        raise InputError(f"--model {type(model).__name__} trains nothing: use python -m ptune.evaluate.")
    if cli.config.compile and cli.config.cache_frozen:
        raise InputError(
            "option --compile true: the forward pass reads from disk what --cache_frozen has computed, which "
            "torch.compile cannot trace; leave one of the two options out."
        )
    asked = cli.config.ckpt_path or ("auto" if slurm.requeued() else None)
    if slurm.requeued() and (done := folder.done_before(run_dir, cli.identity)):
        return done
    start = folder.open_run(run_dir, asked)
    config = cli.resolved
    data.setup("fit")  # mistakes in the data surface before a directory is made

    def begin(trainer: Trainer) -> str:
        """Write config.yaml and start W&B; where the numbers go, in words."""
        return folder.begin(cli, config, trainer)

    origin, telemetry = same.Provenance(config, data), callbacks.Telemetry()
    history = History(telemetry)
    best = RunCheckpoint(run_dir, "best", model.monitor)
    last = RunCheckpoint(
        run_dir, "last", every_n_steps=cli.config.every_n_steps, every_minutes=cli.config.every_minutes
    )
    finite, workers = Finite(best, last, cli.config.skip_nonfinite), Workers(cli.config.worker_timeout)
    compiled = Compiled(data)
    # In this order, and a user's own behind them, so that every checkpoint holds the state of `best`.
    own: list[Callback] = [workers, origin, callbacks.Beginning(begin), *[compiled] * bool(cli.config.compile)]
    own += [telemetry, history, LearningRateMonitor("step"), finite]
    if cli.config.cache_frozen:
        own.append(FrozenLayers(data, cli.config.cache_frozen is True, cli.config.cache_limit))
    own += [StopAtStep(last, workers), best, last, *more]
    trainer = cli.build_trainer(run_dir, [MetricsLog(run_dir, start.step)], own)
    full = disk.told(run_dir, "mend that, and go on with the same command and --ckpt_path auto.")
    with full, folder.made(run_dir), workers.watched(trainer), loggers.told():
        folder.check_unchanged(run_dir, asked, start)
        origin.check(trainer, model, Path(run_dir), start, cli.config.allow_change)
        cli.fit(trainer, start.path)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return None
        if trainer.is_global_zero:
            folder.write_config(Path(run_dir), config)  # again: where no step was left, no training has begun
        finished = cli.run(trainer, about | {"went_on_from": origin.went_on_from} | compiled.about, origin.changes)
        work = telemetry.state_dict() | finite.state_dict() | history.state_dict()
        found = result.report(finished, result.load_best(finished, best, work))
        if not trainer.is_global_zero:
            return None
        kept = result.write(finished, found)
        print(result.table(found), flush=True)
        uploads.upload(finished, kept, cli.config.wandb.samples)
        if not cli.config.keep_checkpoints:
            for checkpoint in (best, last):
                checkpoint.path.unlink(missing_ok=True)
        return kept


def main(args: list[str] | None = None, more: Sequence["Callback"] = ()) -> command.Result | None:
    """Run the command line `args`, `sys.argv` by default; what `result.json` holds.

    Where there is none, for help, for `fast_dev_run` and in the other processes of a run, it is None.

    Args:
        args: the words.
        more: further callbacks of training. They are no options of the run, which is the same run without them.

    Raises:
        SystemExit: with the exit code of a run that does not end well, after one sentence on stderr: 2 for a mistake in
            the input, 1 for training that cannot go on, 128 and the number of a signal that has ended it.
    """
    args = sys.argv[1:] if args is None else args
    return command.main("fit", PURPOSE, partial(run, given=args, more=more), args)


if __name__ == "__main__":
    main()
