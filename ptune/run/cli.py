"""Lightning's command line, with links so that nobody states a thing twice: model, data and trainer of a command."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, final

import transformers
import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, ProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ptune.data.base import TaskData
from ptune.errors import InputError, first_line, nearest
from ptune.run import catalog, resolved, trainer_options
from ptune.run.checkpoints import WholeCheckpoints
from ptune.run.command import HELP, root
from ptune.run.identity import Identity, identify
from ptune.run.loggers import Wandb
from ptune.run.options import Parser, refused_class
from ptune.run.predictions import Predictions
from ptune.run.result import Run, logged_as
from ptune.tuning.transfer import pinned
from ptune.tuning.tuner import PromptTuner

for _module in (entry.module for group in catalog.GROUPS for entry in catalog.classes(group).values()):
    import_module(_module)  # jsonargparse finds a class by its short name once it is imported

NOISE = (
    "isinstance.treespec",
    "Checkpoint directory .* exists",
    "The '.*_dataloader' does not have many",
    "It is recommended to use .self.log",  # metrics are of all processes already
    "is smaller than the logging interval",  # steps are counted over epochs, so the loss is logged all the same
    "The `srun` command is available",  # on each machine of a cluster, outside of its jobs, too
    ".*LightningCLI's args parameter",  # a command called from Python has the process's own words, too
)
"""Warnings of Lightning that are not about the run."""


def without_noise() -> None:
    """Silence what libraries say that is not about the run."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Where the hub is not reached, one sentence says so in the end; the retries need no line each.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    for noise in NOISE:
        warnings.filterwarnings("ignore", f".*{noise}")


def slots_of(model: Namespace | None) -> int:
    """Input slots of the method a parsed `model` names; 0 where it is missing, which is an error of its own."""
    if model is None:
        return 0
    module, _, name = model.class_path.rpartition(".")
    argument = resolve_name(f"{module}:{name}").slot_argument
    return model.init_args[argument] if argument else 0


@final
class CLI(LightningCLI):
    """Model and data of a command line; `build_trainer` makes the trainer when the run directory is known.

    Attributes:
        model: the method, its backbone not loaded yet.
        datamodule: the task's data, not read yet.
        config: the resolved options.
    """

    @classmethod
    def of(cls, args: list[str]) -> "CLI":
        """Parse `args`, which `ptune.run.arguments.prepare` has checked, and build model and data.

        Raises InputError for a mistake in them.
        """
        without_noise()
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
        for name in ("run_dir", "ckpt_path", "allow_change"):
            parser.add_argument(f"--{name}", type=str | None, default=None, help=HELP[name])
        parser.add_argument("--every_n_steps", type=int, default=0, help=HELP["every_n_steps"])
        parser.add_argument("--every_minutes", type=float, default=0.0, help=HELP["every_minutes"])
        parser.add_argument("--skip_nonfinite", type=int, default=0, help=HELP["skip_nonfinite"])
        parser.add_argument("--worker_timeout", type=float, default=600.0, help=HELP["worker_timeout"])
        parser.add_argument("--cache_frozen", type=bool | Literal["auto"], default=False, help=HELP["cache_frozen"])  # type: ignore[arg-type]
        parser.add_argument("--cache_limit", type=float, default=4.0, help=HELP["cache_limit"])
        parser.add_argument("--compile", type=bool | None, default=None, help=HELP["compile"])
        parser.add_argument("--predictions", type=bool, default=True, help=HELP["predictions"])
        parser.add_argument("--keep_checkpoints", type=bool, default=True, help=HELP["keep_checkpoints"])
        parser.add_class_arguments(Wandb, "wandb")
        parser.link_arguments("model.init_args.backbone", "data.init_args.backbone")
        parser.link_arguments("model", "data.init_args.slots", compute_fn=slots_of)
        parser.link_arguments("data.head", "model.init_args.head", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        """Find home folders, name the trained prompt that a run starts from by its content, silence other libraries.

        Raises:
            InputError: there is no such prompt.
        """
        for name in ("run_dir", "ckpt_path"):  # a shell leaves the ~ of --run_dir=~/x as it is, and Lightning does not
            if self.config.get(name):
                self.config[name] = os.path.expanduser(self.config[name])
        model = self.config.get("model")
        if model is not None and isinstance(model.init_args.get("init"), str):
            model.init_args.init = pinned(model.init_args.init)
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()

    def instantiate_classes(self) -> None:
        """Model and data alone: a trainer writes into the run directory, which is not opened yet.

        Raises InputError for a logger, callback, ... of the trainer that cannot be built: a package or option is wrong.
        """
        try:
            self.config_init = self.parser.instantiate(self.config)
        except ValueError as error:
            name, cause = refused_class(error)
            if root(error) is not None or not name or name.startswith("ptune."):
                raise
            raise InputError(f"trainer: {name.rpartition('.')[2]} cannot be built ({first_line(cause)}).") from error
        self.model: PromptTuner = self.config_init["model"]
        self.datamodule: TaskData = self.config_init["data"]
        if self.datamodule.completed:  # config.yaml holds what was read off the data, so that it is not read again
            self.config.data.init_args.task = Namespace(vars(self.datamodule.completed))

    @property
    def run_dir(self) -> str:
        """The directory that is asked for, or the default one, which follows from the run's identity.

        Raises:
            InputError: the default one is asked for to go on with other options, which are those of another run.
        """
        if self.config.run_dir:
            return self.config.run_dir
        if self.config.allow_change and self.config.ckpt_path in ("auto", "last"):
            raise InputError(
                f"option --allow_change {self.config.allow_change}: other options are another run, whose default "
                "directory is another one; name the directory to go on in with --run_dir."
            )
        return str(Path("runs", self.identity.name))

    @cached_property
    def identity(self) -> Identity:
        """What the run is; the data are read for it."""
        return identify(resolved.options(self.resolved) or {}, self.datamodule)

    @property
    def wandb(self) -> Wandb | None:
        """Weights & Biases, unless `--trainer.logger` asks for other loggers or for none."""
        trainer = self.config_init["trainer"]
        return self.config_init["wandb"] if trainer.logger in (None, True) and not trainer.fast_dev_run else None

    def build_trainer(self, run_dir: str, loggers: list[Logger], callbacks: list[Callback]) -> Trainer:
        """The trainer with the options' own loggers and callbacks behind these.

        Raises:
            InputError: an option of the trainer that Lightning refuses, now or in the middle of a run.
        """
        config = self.config_init["trainer"]
        given = _listed(config.callbacks)
        self._check_monitors(given)
        trainer_options.check(config)
        # A bar that shows the loss of every step waits for the device in every step.
        if config.enable_progress_bar in (None, True) and not any(isinstance(own, ProgressBar) for own in given):
            bar = TQDMProgressBar(refresh_rate=config.log_every_n_steps)
            if not sys.stdout.isatty():  # a file or a pipe gets the result alone
                bar.disable()
            callbacks = [*callbacks, bar]
        loggers = [*loggers, *(logger for logger in _listed(config.logger) if isinstance(logger, Logger))]
        try:
            trainer = self.instantiate_trainer(
                logger=loggers,
                callbacks=[*callbacks, *given],
                plugins=[*_listed(config.plugins), WholeCheckpoints()],
                default_root_dir=run_dir,
                # Lightning validates a fit under no_grad; under inference_mode the evaluation would be compiled again.
                inference_mode=config.inference_mode and not self.config.compile,
            )
        except (MisconfigurationException, ValueError, TypeError, RuntimeError, ModuleNotFoundError) as error:
            raise InputError(f"trainer: {first_line(error)}.") from error
        trainer_options.check_processes(trainer)
        return trainer

    def fit(self, trainer: Trainer, checkpoint: str | None) -> None:
        """Train, from `checkpoint` on if there is one.

        Raises:
            InputError: Lightning refuses an option when it has seen the data, before the first step.
        """
        try:
            trainer.fit(self.model, self.datamodule, ckpt_path=checkpoint, weights_only=True)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
            if isinstance(error, InputError) or "lightning" not in Path(raised_in).parts:
                raise
            raise InputError(f"trainer: {first_line(error)}.") from error

    def _check_monitors(self, callbacks: list[Callback]) -> None:
        """Refuse a callback that monitors a metric no run logs, which Lightning would find after an epoch."""
        logged = [f"val/{name}" for name in (*self.datamodule.task.metrics, "loss")] + ["train/loss"]
        for callback in callbacks:
            if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor not in (None, *logged):
                raise InputError(
                    f"trainer.callbacks: {type(callback).__name__}'s monitor {callback.monitor!r} is not logged; "
                    f"{nearest(str(callback.monitor), logged)}"
                )

    def run(self, trainer: Trainer, about: dict[str, Any], changes: Sequence[dict[str, Any]] = ()) -> Run:
        """What the result is told of this run.

        Args:
            trainer: the trainer, after its fit.
            about: what `ptune.run.machine.about` says of the command.
            changes: options that were changed when it was resumed.
        """
        kept = Predictions(self.datamodule) if self.config.predictions else None
        parts = self.model, self.datamodule, trainer, self.identity.changed(changes), self.columns()
        return Run(Path(self.run_dir), *parts, about, changes, kept)

    @cached_property
    def resolved(self) -> str:
        """The resolved options as YAML, without those that say how a stopped run goes on.

        Without `ckpt_path`, too, if it is another run's: that run had the same options, so a run that is repeated with
        these begins anew and has the same numbers. `result.json` says what it went on from.

        Raises:
            InputError: a class of the trainer has an option that YAML cannot hold, such as an enumeration.
        """
        try:
            config = self.config.clone()
            config.allow_change = config.ckpt_path = None
            return self.parser.dump(config, skip_none=False)
        except (ValueError, yaml.YAMLError) as error:
            name = refused_class(error)[0].rpartition(".")[2] or "a class"
            raise InputError(
                f"trainer: {name} has an option that config.yaml cannot hold, so the run could not be repeated; "
                "leave it out."
            ) from error

    def columns(self) -> dict[str, Any]:
        """The run's choices as flat columns."""
        model = {key: value for key, value in self.model.hparams.items() if key != "head"}
        trainer = {key: self.config.trainer[key] for key in ("max_epochs", "precision", "accumulate_grad_batches")}
        choices = ("path", "batch_size", "max_length", "shots", "holdout", "train_rows", "data_seed")
        choices += ("template", "demonstrations", "decoding", "sampling")
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

    def described(self) -> dict[str, Any]:
        """The run's choices and what it is made of, as flat columns; the data are read and the backbone is loaded."""
        data = self.datamodule
        majority = {logged_as(split, data): data.majority(split) for split in data.splits}
        return {
            **self.columns(),
            "monitor": data.head.monitor,
            "chosen_on": data.splits[0],
            "fingerprint": self.model.backbone.fingerprint,
            "data_fingerprint": self.identity.data,
            "hash": self.identity.hash,
            **{f"majority/{split}/{name}": value for split, found in majority.items() for name, value in found.items()},
        }


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]
