"""`PromptTuner`: what every method shares: a backbone, a head, a training step, an optimizer, small checkpoints."""

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Protocol, runtime_checkable

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import SumMetric

from ptune.backbone import Backbone
from ptune.backbone.attention import Attention, flex_gap
from ptune.backbone.pretrained import MINILM, Dtype, Pool, describe
from ptune.errors import InputError
from ptune.heads import Batch, head_for
from ptune.heads.metrics import Scores
from ptune.prompts import Prompts
from ptune.tasks.spec import HeadSpec
from ptune.tuning import resume, saving
from ptune.tuning.reparameterized import Reparameterized
from ptune.tuning.schedules import Schedule, scheduler

LARGEST_RATE = 1e37
"""AdamW divides the learning rate by 1 - 0.9 at its first step, and torch refuses a factor that fp32 cannot hold."""


class PromptTuner(L.LightningModule, ABC):
    """A frozen backbone, a head, and a method's own tensors.

    A method is a final subclass. It sets `self.prompt` in its constructor, after `super().__init__`, to the module with
    its own tensors, and overrides `prompts`, which turns them into what the backbone reads. These members may be
    overridden, too; all others are the same for every method:

    - `slot_argument`, `stored_arguments`, `trains`: what the method says of itself;
    - `shift`: positions that its prefix takes away from the text;
    - `prepare`: checks of the loaded backbone, and initial values that are read from it;
    - `backbone_parameters`, `rates`: tensors of the backbone that it trains, and learning rates;
    - `layer_norms`, `metadata`: norms that are logged, and what else a saved file depends on;
    - `forward`, `check_data`: for a method that reads the scores otherwise or needs more of the data.

    A prompt that is computed from other tensors while it is trained is a `Reparameterized`; saving, `fold` and export
    then need nothing else. `self.hparams` holds the arguments of the subclass, too: Lightning's `save_hyperparameters`
    reads them from the frames of the constructors that are running, so `self.hparams["length"]` needs no assignment.

    Args:
        backbone: Hub id, local folder, or `package:NAME/PATH` (a folder inside an installed Python package).
        head: Form and labels of the task's head; the data module's `head`, linked on the command line.
        lr: Peak learning rate of the method's own tensors (fine-tuning: the backbone; linear probe: the head).
        head_lr: Peak learning rate of the head; the same as `lr` if left out.
        weight_decay: AdamW's decoupled weight decay; never on biases, normalisation and other one-dimensional tensors.
        schedule: Learning rate over the steps; `exponential` decays once an epoch, as P-Tuning v2 did for NER and QA.
        warmup: Steps of linear warm-up; below 1, a fraction of all steps.
        decay: Factor an epoch of the exponential schedule.
        pool: How one vector is read from a text; `auto` takes what the checkpoint was trained with.
        head_dropout: Dropout probability before the head.
        head_bias: Give the head a bias; off, it has the form that transformers' classifiers of GPT-2 or Llama have.
        backbone_dropout: Keep the checkpoint's own dropout. It is off by default for a frozen backbone, whose weights
            cannot adapt to the noise, and because it costs time. Fine-tuning turns it on, as BERT did.
        checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        attention: Attention function of transformers; `flex` trains on a GPU only, `flash` needs a GPU and the package
            flash-attn.
        backbone_dtype: `fp32`, or for a frozen backbone `bf16`, `int8` or `int4` (bitsandbytes), which take less
            memory; the trained tensors stay fp32.
    """

    trains: ClassVar[bool] = True
    """Whether the method trains anything; if not, `ptune.evaluate` runs it, and `ptune.fit` refuses it."""
    slot_argument: ClassVar[str] = ""
    """Argument that says how many slots of the input the method fills with vectors; none for most methods."""
    prompt: nn.Module | None
    """The method's own tensors, if it has any."""
    stored_arguments: ClassVar[tuple[str, ...]] = ()
    """Arguments on which the shape and meaning of the method's tensors depend; they are stored with the tensors."""

    def __init__(
        self,
        backbone: str = MINILM,
        head: HeadSpec | dict[str, Any] | None = None,
        lr: float = 5e-3,
        head_lr: float | None = None,
        weight_decay: float = 0.0,
        schedule: Schedule = "linear",
        warmup: float = 0.0,
        decay: float = 0.95,
        pool: Pool = "auto",
        head_dropout: float = 0.1,
        head_bias: bool = True,
        backbone_dropout: bool = False,
        checkpointing: bool = False,
        attention: Attention = "sdpa",
        backbone_dtype: Dtype = "fp32",
    ) -> None:
        super().__init__()
        if isinstance(head, Mapping):  # from a checkpoint, which holds plain dicts only
            head = HeadSpec(**{k: saving.tuples(v) for k, v in head.items()})  # type: ignore[arg-type]
        if head is None:
            raise InputError("head: missing; give the data module's (head=data.head).")
        for name, value in {"lr": lr, "head_lr": head_lr, "decay": decay}.items():
            if value is not None:
                check_positive(name, value)
                if name != "decay" and value > LARGEST_RATE:
                    raise InputError(f"{name}: {value} overflows fp32 in AdamW's step; use {LARGEST_RATE} or less.")
        for name, value in {"weight_decay": weight_decay, "warmup": warmup}.items():
            check_not_negative(name, value)
        if not 0 <= head_dropout < 1:
            raise InputError(f"head_dropout: {head_dropout} must be at least 0 and below 1.")
        self.save_hyperparameters(ignore=["head"], logger=False)
        self.hparams["head"] = saving.plain(asdict(head))
        self.head_spec = head
        self.spec = describe(backbone)
        self.backbone: Backbone = None  # type: ignore[assignment]  # loaded by configure_model
        self.prompt = None
        self.unused: set[str] = set()
        self.head = head_for(head, self.spec, head_dropout, head_bias)
        self.metrics = Scores(head)
        # Not a MeanMetric: with "disable", which lets a loss of NaN be seen, torchmetrics 1.9 ignores the weights.
        self.loss_sum, self.loss_count = (SumMetric(nan_strategy="disable") for _ in range(2))
        self.split = "val"
        self._folded = False  # what the arguments say is computed from other tensors no longer is
        self._resumed: dict[str, Any] | None = None  # the checkpoint that a run is resumed from
        self._gradients_checked = False
        self.recipe: dict[str, Any] = {}
        """How the rows that the model was checked with are read: class, arguments, and what was learned from data."""
        self.strict_loading = False  # a checkpoint holds trained tensors only; `on_load_checkpoint` checks which

    @abstractmethod
    def prompts(self, batch: Batch) -> Prompts | None:
        """What the method adds to the backbone for this batch."""

    @property
    def monitor(self) -> str:
        """Name under which the metric that chooses the best checkpoint is logged."""
        return f"val/{self.head_spec.monitor}"

    @property
    def slots(self) -> int:
        """Slots of the input that the method fills with vectors."""
        return self.hparams[self.slot_argument] if self.slot_argument else 0

    @property
    def shift(self) -> int:
        """Positions that the method's prefix occupies before the text."""
        return 0

    # ---- the model

    def configure_model(self) -> None:
        """Load the backbone's weights, freeze what is not trained. Raises InputError where the two do not fit."""
        if self.backbone is not None:
            return
        p = self.hparams
        self.backbone = Backbone(
            p["backbone"],
            p["backbone_dropout"],
            p["checkpointing"],
            p["attention"],
            p["pool"],
            p["backbone_dtype"],
            self.head.lm,
        )
        if not self.head.pools:
            self.backbone.pooler = None  # the head does not read it, so fine-tuning could not train it
        # Counted before a method injects adapters; bitsandbytes stores two int4 weights in one uint8.
        self.backbone_size = sum(v.numel() * (1 + (v.dtype == torch.uint8)) for v in self.backbone.parameters())
        self.prepare(self.backbone)
        self.backbone.requires_grad_(False)
        tuned = self.backbone_parameters(self.backbone)
        if any(value.dtype != torch.float32 for value in tuned.values()):
            self.require_fp32()
        for value in tuned.values():
            value.requires_grad_()
        self.unused = self.backbone.unused(tuned) if tuned else set()
        for name in self.unused:
            tuned[name].requires_grad_(False)
        trained = self.trained()
        for name, value in self.named_parameters():
            if value.requires_grad != (name in trained):
                raise RuntimeError(f"{name}: declared {name in trained}, requires_grad {value.requires_grad}")
        # Frozen tensors are equal in every process already. DDP need not send them, so evaluation has no collective
        # operation for them and processes may evaluate different numbers of rows.
        state = [name for name, _ in self.named_parameters()] + [name for name, _ in self.named_buffers()]
        self._ddp_params_and_buffers_to_ignore = [name for name in state if name not in trained]

    def require_fp32(self) -> None:
        """Raise InputError for a backbone of fewer than 32 bits in a method that trains the backbone's own tensors."""
        if self.hparams["backbone_dtype"] != "fp32":
            raise InputError(
                f"backbone_dtype: {self.hparams['backbone_dtype']!r} is for a frozen backbone, and "
                f"{type(self).__name__} trains it; use fp32, and --trainer.precision bf16-mixed for speed."
            )

    def prepare(self, backbone: Backbone) -> None:
        """Check that the method can prompt the backbone, and read initial values from it; called when it is loaded."""

    def backbone_parameters(self, backbone: Backbone) -> dict[str, nn.Parameter]:
        """The trained tensors of the backbone by their names in it; called after `prepare`."""
        return {}

    def groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """The trained tensors by name in three groups: prompt, head and backbone, without the `unused`.

        No other tensor may require a gradient.
        """
        tuned = {} if self.backbone is None else self.backbone_parameters(self.backbone)
        tensors = {
            "prompt": {} if self.prompt is None else dict(self.prompt.named_parameters()),
            "head": dict(self.head.named_parameters()),
            "backbone": {name: value for name, value in tuned.items() if name not in self.unused},
        }
        return {
            group: {f"{group}.{name}": value for name, value in named.items()}
            for group, named in tensors.items()
            if named
        }

    def trained(self) -> dict[str, nn.Parameter]:
        """The trained tensors by name."""
        return {name: value for group in self.groups().values() for name, value in group.items()}

    @property
    def rates(self) -> dict[str, float]:
        """Peak learning rate of each group."""
        p = self.hparams
        return {"prompt": p["lr"], "head": p["head_lr"] or p["lr"], "backbone": p["lr"]}

    def layer_norms(self) -> dict[str, Tensor]:
        """Norms by layer to log; empty for methods without a prefix."""
        return {}

    def forward(self, batch: Batch) -> Tensor:
        """Scores of a batch, in the form of the task's head."""
        return self.head(self.backbone(batch, self.prompts(batch)), batch, self.backbone)

    # ---- steps

    def on_train_start(self) -> None:
        """Continue a resumed run with the batches that it has not seen in its epoch."""
        resume.place_loader(self.trainer)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by the step's place in the run, so that a resumed run equals the uninterrupted one."""
        place = f"{os.environ.get('PL_GLOBAL_SEED', 0)}/{self.current_epoch}/{batch_idx}/{self.global_rank}"
        torch.manual_seed(int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest()))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss over the global batch: gradients are averaged over processes, so each divides by the mean count."""
        total, count = self.head.loss(self(batch), batch)
        count = count.float()
        if self.trainer.world_size > 1:
            count = self.trainer.strategy.reduce(count, reduce_op="mean")
        loss = total / count
        self.log("train/loss", loss, prog_bar=True, batch_size=batch_rows(batch))
        # The factor is 1, or NaN for a loss that is not finite: its gradient is then NaN in every process.
        return loss * (1 + 0 * loss.detach())

    def on_after_backward(self) -> None:
        """After the first backward pass of a fit, check that the loss depends on what is trained.

        Every tensor of the prompt and of the head must have a gradient. Of the backbone's tensors, one must: those that
        no input reads are known before training (`unused`), and others depend on the batch, such as XLNet's segment
        embeddings (token types) or the experts of a mixture.

        Raises:
            InputError: a trained tensor has no gradient; it would keep its initial value in silence.
        """
        if self._gradients_checked:
            return
        self._gradients_checked = True
        groups = self.groups()
        missing = {group: [n for n, v in named.items() if v.grad is None] for group, named in groups.items()}
        if len(missing.get("backbone", [])) < len(groups.get("backbone", {})):
            del missing["backbone"]
        names = [name for named in missing.values() for name in named]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(
                f"{names[0]}{more} gets no gradient: the loss does not depend on it; check that "
                f"{type(self).__name__}.prompts returns what is computed from it, not a detached copy, and that the "
                "backbone reads it."
            )

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """End a run that reaches `max_steps` within an epoch with a validation, so that there is a best checkpoint.

        Lightning validates when `should_stop` is set, unless `check_val_every_n_epoch` or `limit_val_batches` rule it
        out.
        """
        if 0 <= self.trainer.max_steps <= self.trainer.global_step:
            self.trainer.should_stop = True

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add the scores to the task's metrics, and return them."""
        scores = self(batch)
        self.metrics.update(scores, batch)
        if "labels" in batch:
            total, count = self.head.loss(scores, batch)
            self.loss_sum.update(total)
            self.loss_count.update(count)
        return scores

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the split; torchmetrics has gathered every row of every process once."""
        values = {f"{self.split}/{name}": value for name, value in self.metrics.compute().items()}
        self.log_dict(values, prog_bar=True)
        self.metrics.reset()
        if self.loss_sum.update_called:
            self.log(f"{self.split}/loss", self.loss_sum.compute() / self.loss_count.compute())
        self.loss_sum.reset()
        self.loss_count.reset()

    def on_test_epoch_start(self) -> None:
        """Name the metrics after the split that is tested."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.split = "test" if data is None else data.splits[-1]

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add the scores to the task's metrics, and return them."""
        return self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the split."""
        self.on_validation_epoch_end()
        self.split = "val"

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Scores of a batch, in the form of the head's `forward`."""
        return self(batch)

    def on_fit_start(self) -> None:
        """Check before the first step that the data have the method's slots and fit into the backbone's positions."""
        self.check_data(self.trainer.datamodule)  # type: ignore[attr-defined]
        if self.hparams["backbone_dtype"] != "fp32" and {v.dtype for v in self.trained().values()} != {torch.float32}:
            raise InputError(
                f"trainer.precision: {self.trainer.precision!r} would train in 16 bits what a backbone with "
                f"backbone_dtype: {self.hparams['backbone_dtype']} needs in 32; use 32-true or bf16-mixed."
            )
        below = {"prompt", "backbone"} & self.groups().keys()  # their gradients pass through attention
        if below and self.hparams["attention"] == "flex" and (gap := flex_gap(self.device)):
            raise InputError(f"attention: {gap}; train with sdpa.")
        if self._resumed:
            resume.prepare(self._resumed, self.trainer)
            self._resumed = None
        self._gradients_checked = False

    def check_data(self, data: Any) -> None:
        """Check the data module before the first batch; None stands for plain loaders, which are not checked.

        How it reads a row is kept in `recipe`, which is saved with the tensors.

        Raises:
            InputError: the data module lacks the method's input slots, or its longest text and the shift of positions
                exceed the positions of the backbone.
        """
        room = self.backbone.room
        if data is None:
            return
        if data.slots != self.slots:
            raise InputError(
                f"data.slots: {data.slots}, but {type(self).__name__} fills {self.slots}; use slots={self.slots}."
            )
        self.recipe = kept(data)
        if room is None or data.max_length + self.shift <= room:
            return
        shifted = f" and a prefix of {self.shift} that shifts positions" if self.shift else ""
        raise InputError(
            f"data.max_length: {data.max_length} tokens{shifted} do not fit into the {room} positions of "
            f"{self.hparams['backbone']!r}; use --data.max_length {max(room - self.shift, 0)} or less."
        )

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """AdamW; a learning rate for each of prompt, head and backbone."""
        p, rates = self.hparams, self.rates
        groups: list[dict[str, Any]] = []
        for group, tensors in self.groups().items():
            matrices = [value for value in tensors.values() if value.ndim > 1]
            vectors = [value for value in tensors.values() if value.ndim <= 1]
            for name, values, decay in ((group, matrices, p["weight_decay"]), (f"{group}/1d", vectors, 0.0)):
                if values:
                    groups.append({"name": name, "params": values, "lr": rates[group], "weight_decay": decay})
        optimizer = torch.optim.AdamW(groups)
        return {
            "optimizer": optimizer,
            "lr_scheduler": scheduler(optimizer, self.trainer, p["schedule"], p["warmup"], p["decay"]),
        }

    # ---- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained tensors only."""
        trained = self.trained()
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in trained}
        checkpoint["metadata"] = self.metadata()
        checkpoint["folded"] = self._folded
        checkpoint["recipe"], checkpoint["precision"] = self.recipe, self._precision

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model, or one that does not hold exactly the trained tensors."""
        own, saved = self.metadata(), checkpoint["metadata"]
        if checkpoint.get("folded"):
            self.fold()
        models = [found | {"backbone": found["fingerprint"]} for found in (saved, own)]  # the folder may have moved
        tensors = [{"tensors": saving.shapes(found)} for found in (checkpoint["state_dict"], self.trained())]
        saving.compare("the checkpoint", models[0] | tensors[0], models[1] | tensors[1])
        self.recipe = checkpoint.get("recipe") or self.recipe
        self._resumed = checkpoint if "loops" in checkpoint else None

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Torch's, but frozen tensors do not count as missing: Lightning would warn with the whole backbone's names."""
        keys = super().load_state_dict(state_dict, strict, assign)
        return keys._replace(missing_keys=[name for name in keys.missing_keys if name in self.trained()])

    def metadata(self) -> dict[str, str]:
        """What saved tensors depend on: method, its stored arguments, backbone and its fingerprint, task, labels."""
        self.configure_model()
        return {
            "backbone": self.hparams["backbone"],
            "fingerprint": self.backbone.fingerprint,
            "method": type(self).__name__,
            "task": self.head_spec.task,
            "head": self.head_spec.kind,
            "labels": json.dumps(self.head_spec.labels),
            "template": self.head_spec.template,
            "words": json.dumps(self.head_spec.words),
            "pooling": self.backbone.pooling,
        } | {name: str(self.hparams[name]) for name in self.stored_arguments}

    @property
    def _precision(self) -> str:
        """Lightning's precision that the model was trained or evaluated with."""
        return "32-true" if self._trainer is None else str(self._trainer.precision)

    def save_prompts(self, path: str | os.PathLike) -> None:
        """Write the trained tensors (a reparameterized prefix folded) and their metadata as one safetensors file.

        With the arguments of the model and the recipe of its rows in the metadata, `ptune.load` needs nothing else.
        """
        arguments = {name: value for name, value in self.hparams.items() if name != "head"}
        whole = {"arguments": json.dumps(saving.plain(arguments), default=str), "recipe": json.dumps(self.recipe)}
        saving.save(path, self.tensors(), self.metadata() | whole | {"precision": self._precision})

    def load_prompts(self, path: str | os.PathLike) -> None:
        """Load what `save_prompts` wrote; the tensors stay trainable. Raises InputError that names what differs."""
        tensors, saved = saving.load(path)
        own = self.metadata()
        if saved.get("fingerprint") == own["fingerprint"]:
            saved["backbone"] = own["backbone"]  # the same weights under another name
        saving.compare(str(path), saved, own)
        saving.compare(str(path), {"tensors": saving.shapes(tensors)}, {"tensors": saving.shapes(self.tensors())})
        saving.check_values(str(path), tensors)
        self.fold()
        for name, value in self.trained().items():
            value.data.copy_(tensors[name])

    def tensors(self) -> dict[str, Tensor]:
        """The trained tensors as they are saved for use: a reparameterized prompt is folded."""
        prompt = self.folded_prompt()
        own = {} if prompt is None else {f"prompt.{name}": value for name, value in prompt.named_parameters()}
        rest: dict[str, Tensor] = {n: value for n, value in self.trained().items() if not n.startswith("prompt.")}
        return rest | own

    def fold(self) -> None:
        """Replace a reparameterized prompt by what it computes; the scores stay the same."""
        self._folded = self._folded or isinstance(self.prompt, Reparameterized)
        self.prompt = self.folded_prompt()

    def folded_prompt(self) -> nn.Module | None:
        """The prompt without its reparameterization."""
        if not isinstance(self.prompt, Reparameterized):
            return self.prompt
        return self.prompt.folded().train(self.prompt.training)


@runtime_checkable
class Recipe(Protocol):
    """A data module that says how it reads a row, as those of ptune do."""

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """Its arguments, in JSON's types."""

    @abstractmethod
    def learned(self) -> dict[str, Any]:
        """What it has learned from the data, in JSON's types."""


def kept(data: Any) -> dict[str, Any]:
    """What is kept of a data module; nothing of one that is not ptune's."""
    if not isinstance(data, Recipe):
        return {}
    return {"class": type(data).__name__, "arguments": data.recipe(), "learned": data.learned()}


LARGEST = 100_000
"""Largest length of a prompt, and width of what computes one: a thousand times those of the papers."""


def check_size(name: str, value: int, least: int = 1) -> None:
    """Raise InputError unless the argument `name` is a size between `least` and what any memory holds."""
    if not least <= value <= LARGEST:
        raise InputError(f"{name}: {value} must be at least {least} and at most {LARGEST}.")


def check_positive(name: str, value: float) -> None:
    """Raise InputError unless the argument `name` is finite and greater than 0; NaN passes no such comparison."""
    if not 0 < value < math.inf:
        raise InputError(f"{name}: {value} must be greater than 0 and finite.")


def check_not_negative(name: str, value: float, meaning: str = "") -> None:
    """Raise InputError unless the argument `name` is finite and at least 0; `meaning` says what 0 means."""
    if not 0 <= value < math.inf:
        raise InputError(f"{name}: {value} must be at least 0 and finite{meaning}.")


def batch_rows(batch: Batch) -> int:
    """Rows in a training batch."""
    return len(batch["labels"])
