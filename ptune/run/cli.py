"""The command line: Lightning's, with links so that nobody states a thing twice, and errors of one sentence."""

import logging
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

import jsonargparse
import torch
import transformers
from jsonargparse import Namespace
from jsonargparse._util import import_object
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, LambdaCallback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ptune.data.base import TaskData
from ptune.errors import InputError, nearest
from ptune.run.callbacks import Last, Telemetry
from ptune.run.loggers import MetricsFile, Wandb
from ptune.run.options import Parser, plain_words, refuse_linked, root
from ptune.run.result import evaluate, report, table, write
from ptune.tuning.tuner import PromptTuner

Own = TypeVar("Own", bound="CLI")


def slots_of(model: Namespace | None) -> int:
    """Input slots of the method a parsed `model` names; 0 where it is missing, which is an error of its own."""
    argument = "" if model is None else import_object(model.class_path).slot_argument  # type: ignore[attr-defined]
    return model.init_args[argument] if argument else 0  # type: ignore[union-attr]


class CLI(LightningCLI):
    """LightningCLI with `--run_dir`, `--ckpt_path` and `--wandb`, links from task and model, and ptune's defaults."""

    @classmethod
    def of(cls: type[Own], args: list[str] | None) -> Own:  # Self is unknown to a type checker of single functions
        """Parse `args` (the process's own by default) and build data, model and trainer."""
        plain_words()
        refuse_linked(args)
        jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
        return cls(
            PromptTuner,
            TaskData,
            save_config_callback=None,
            seed_everything_default=11,
            trainer_defaults={"max_epochs": 10, "gradient_clip_val": 1.0, "log_every_n_steps": 10}
            | {"num_sanity_val_steps": 0, "enable_model_summary": False},
            parser_class=Parser,
            parser_kwargs={"allow_abbrev": False},
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of ptune's own, and the links."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Directory of the run; runs/<task>/<method>/<backbone>-s<seed> if left out.",
        )
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Checkpoint to go on from: a file, or `last` for the last one in run_dir.",
        )
        parser.add_class_arguments(Wandb, "wandb")
        parser.link_arguments("model.init_args.backbone", "data.init_args.backbone")
        parser.link_arguments("model", "data.init_args.slots", compute_fn=slots_of)
        parser.link_arguments("data.head", "model.init_args.head", apply_on="instantiate")

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise InputError(f"seed_everything: {error}.") from error

    def before_instantiate_classes(self) -> None:
        """Silence what is not about the run, and refuse options that a link decides."""
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        for noise in (
            "isinstance.treespec",
            "Checkpoint directory .* exists",
            "The '.*_dataloader' does not have many",
            "It is recommended to use .self.log",  # metrics are of all processes already
        ):
            warnings.filterwarnings("ignore", f".*{noise}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with this run's directory, loggers and checkpoints."""
        model, task = self.model, self.datamodule.task.name
        seed = self.config.seed_everything
        backbone = re.sub(r"[^\w.-]+", "-", model.hparams.backbone.removeprefix("package:")).strip("-.")
        default = Path("runs", task, type(model).__name__, f"{backbone}-s{seed}")
        self.run_dir = str(self.config.run_dir or default)
        self.open()  # mistakes in the data surface before a directory is made
        config = self.config_init["trainer"]
        given = config.callbacks or []
        given = given if isinstance(given, list) else [given]
        self.check_monitors(given)
        make(self.run_dir)
        wanted = config.logger
        own = wanted if isinstance(wanted, list) else [wanted] if isinstance(wanted, Logger) else []
        loggers = [*self.files(), *own]
        self.telemetry = Telemetry(f"{self.run_dir}/metrics.csv")
        self.best = ModelCheckpoint(
            self.run_dir, "best", monitor=model.monitor, mode="max", enable_version_counter=False
        )
        last = Last(self.run_dir, "last", enable_version_counter=False)
        # In this order, and a user's own behind them, so that every checkpoint holds the state of `best`.
        begin = LambdaCallback(on_train_start=lambda trainer, model: self.begin(trainer))
        callbacks = [begin, self.telemetry, LearningRateMonitor("step"), self.best, last, *given]
        try:
            return super().instantiate_trainer(
                logger=loggers, callbacks=callbacks, default_root_dir=self.run_dir, **kwargs
            )
        except (MisconfigurationException, ValueError) as error:
            raise InputError(f"trainer: {error}") from error

    def check_monitors(self, callbacks: list[Callback]) -> None:
        """Raise InputError for a callback that looks at a metric no run logs: Lightning would after an epoch."""
        logged = [f"val/{name}" for name in (*self.datamodule.task.metrics, "loss")] + ["train/loss"]
        for callback in callbacks:
            if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor not in (None, *logged):
                raise InputError(
                    f"trainer.callbacks: {type(callback).__name__}'s monitor {callback.monitor!r} is not logged; "
                    f"{nearest(str(callback.monitor), logged)}"
                )

    def open(self) -> None:
        """Read the data and find the checkpoint to go on from; InputError where either is not as it must be."""
        if not self.model.trains:
            raise InputError(f"--model {type(self.model).__name__} trains nothing: use python -m ptune.evaluate.")
        self.ckpt_path, self.step = open_run(self.run_dir, self.config.ckpt_path)
        self.datamodule.setup("fit")

    def files(self) -> list[Logger]:
        """`metrics.csv`."""
        return [MetricsFile(self.run_dir, self.step)]

    @rank_zero_only
    def begin(self, trainer: Trainer) -> None:
        """Write `config.yaml` and start W&B, now that every check is passed: a run that is refused leaves nothing."""
        config = self.config_init["trainer"]
        if config.fast_dev_run:
            return
        file = Path(self.run_dir, "config.yaml")
        if not file.exists():  # a resumed run has one
            self.parser.save(self.config, str(file), skip_none=False)
        if config.logger in (None, True):
            wandb, self.telemetry.logs = self.config_init["wandb"].logger(self.run_dir, self.flat_config())
            trainer.loggers += [wandb] if wandb else []

    def flat_config(self) -> dict[str, Any]:
        """The run's choices as columns."""
        model = {key: value for key, value in self.model.hparams.items() if key != "head"}
        trainer = {key: self.config.trainer[key] for key in ("max_epochs", "precision", "accumulate_grad_batches")}
        choices = ("path", "batch_size", "max_length", "shots", "data_seed", "template", "demonstrations")
        data = {key: self.config.data.init_args.get(key) for key in choices}
        return {
            "method": type(self.model).__name__,
            "task": self.datamodule.task.name,
            "seed": self.config.seed_everything,
            "run_dir": self.run_dir,
            **model,
            **data,
            **trainer,
        }


def open_run(run_dir: str, ckpt_path: str | None) -> tuple[str | None, int]:
    """The checkpoint to go on from and its step, (None, 0) for a new run; nothing is ever overwritten.

    Raises InputError for a directory that holds a run, unless one of its checkpoints is given, and for a checkpoint
    that is not there.
    """
    folder = Path(run_dir)
    if rank_zero_only.rank != 0:  # started by a process that has opened the run already
        return str(folder / "last.ckpt") if ckpt_path == "last" else ckpt_path, 0
    if ckpt_path is None:
        if (folder / "result.json").exists():
            raise InputError(f"run_dir: {run_dir!r} holds a finished run; choose another --run_dir.")
        if (folder / "config.yaml").exists():
            raise InputError(
                f"run_dir: {run_dir!r} holds an unfinished run; go on with --ckpt_path last, or choose another."
            )
        return None, 0
    path = folder / "last.ckpt" if ckpt_path == "last" else Path(ckpt_path)
    if not path.is_file():
        there = ", ".join(sorted(str(file) for file in folder.glob("*.ckpt"))) or "none"
        raise InputError(f"ckpt_path: {str(path)!r} does not exist; checkpoints in {run_dir!r}: {there}.")
    try:
        return str(path), torch.load(path, map_location="cpu", weights_only=True)["global_step"]
    except Exception as error:  # what torch raises for a file of another kind depends on the file
        raise InputError(f"ckpt_path: {str(path)!r} is not a checkpoint that a run wrote; give such a file.") from error


def make(run_dir: str) -> None:
    """Create the run directory; InputError where it cannot be written."""
    try:
        Path(run_dir).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=run_dir):
            pass
    except OSError as error:
        raise InputError(f"run_dir: {run_dir!r} cannot be written ({error.strerror}); choose another.") from error


class Evaluation(CLI):
    """The same command line without training: data need no training split, a run directory may hold a run."""

    def open(self) -> None:
        """Find the checkpoint of a method that trains something; InputError where there is none."""
        self.ckpt_path, self.step = None, 0
        given = self.config.ckpt_path
        if not self.model.trains:
            if given:
                raise InputError(f"ckpt_path: {type(self.model).__name__} trains nothing and has no checkpoint.")
        else:
            path = f"{self.run_dir}/{given or 'best'}.ckpt" if given in (None, "best", "last") else given
            self.ckpt_path, self.step = open_run(self.run_dir, path)
        self.datamodule.setup("validate")

    def files(self) -> list[Logger]:
        """None: an evaluation leaves its own file, and the run's as they are."""
        return []

    def begin(self, trainer: Trainer) -> None:
        """Start W&B for a method that is only ever evaluated."""
        if not self.model.trains:
            super().begin(trainer)

    def evaluate(self) -> dict[str, Any]:
        """The result, of the checkpoint where there is one."""
        self.model.configure_model()
        self.model.check_data(self.datamodule)
        steps = epoch = 0
        if self.ckpt_path is not None:
            checkpoint = torch.load(self.ckpt_path, map_location="cpu", weights_only=True)
            self.model.on_load_checkpoint(checkpoint)
            self.model.load_state_dict(checkpoint["state_dict"], strict=False)  # it holds trained tensors only
            steps, epoch = checkpoint["global_step"], checkpoint["epoch"] + 1
        self.begin(self.trainer)
        return report(self, steps, epoch, epoch)


def run(args: list[str] | None) -> None:
    """Fit, evaluate the best checkpoint on every labelled split, write and print the result."""
    cli = CLI.of(args)
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.ckpt_path, weights_only=True)
    if cli.trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    result = evaluate(cli)
    if cli.trainer.is_global_zero:
        write(cli, result)
        print(table(result))


def guarded(work: Callable[[list[str] | None], None], args: list[str] | None) -> int:
    """Do the work; a mistake in the input becomes one sentence on stderr and exit code 2."""
    try:
        work(args)
    except ValueError as error:
        mistake = root(error)  # jsonargparse wraps what a constructor raises
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    return 0


def command(args: list[str] | None) -> int:
    """`run`, guarded."""
    return guarded(run, args)
