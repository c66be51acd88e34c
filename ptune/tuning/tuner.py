"""`PromptTuner`: what every method shares: arguments, a frozen backbone, a head, what is trained, an optimizer."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

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
from ptune.tuning.checks import check_not_negative, check_positive, check_rate
from ptune.tuning.optimizer import adamw
from ptune.tuning.recipe import is_own, kept
from ptune.tuning.schedules import Schedule, scheduler
from ptune.tuning.steps import Steps
from ptune.tuning.stored import Stored


class PromptTuner(Steps, Stored, ABC):
    """A frozen backbone, a head, and a method's own tensors.

    A method is a final subclass. It sets `self.prompt` in its constructor, after `super().__init__`, to the module with
    its own tensors, and overrides `prompts`, which turns them into what the backbone reads. These members may be
    overridden, too; all others are the same for every method:

    - `slot_argument`, `stored_arguments`, `trains`: what the method says of itself;
    - `shift`: positions that its prefix takes away from the text;
    - `first_layer`: the first layer that it prompts;
    - `prepare`: checks of the loaded backbone, and initial values that are read from it;
    - `start`: initial values that are read from training rows;
    - `backbone_parameters`, `groups`, `rates`: tensors of the backbone that it trains, and groups with their own rates;
    - `layer_norms`, `metadata`: norms that are logged, and what else a saved file depends on;
    - `forward`, `check_data`: for a method that reads the scores otherwise or needs more of the data.

    A prompt that is computed from other tensors while it is trained is a `Reparameterized`; saving, `fold` and export
    then need nothing else. `self.hparams` holds the arguments of the subclass, too: Lightning's `save_hyperparameters`
    reads them from the frames of the constructors that are running, so `self.hparams["length"]` needs no assignment.

    Args:
        backbone: Hub id, local folder, `package:NAME/PATH` (in an installed Python package), or a GGUF file in one.
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
        attention: Attention function; `flex` trains on a GPU only, `flash` needs a GPU, 16 bits, and torch 2.10 or the
            package flash-attn.
        backbone_dtype: `fp32`, or for a frozen backbone `bf16`, `int8` or `int4` (bitsandbytes), which take less
            memory; the trained tensors stay fp32.
    """

    trains: ClassVar[bool] = True
    """Whether the method trains anything; if not, `ptune.evaluate` runs it, and `ptune.fit` refuses it."""
    slot_argument: ClassVar[str] = ""
    """Argument that says how many slots of the input the method fills with vectors; none for most methods."""

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
        for name, value in {"lr": lr, "head_lr": head_lr}.items():
            if value is not None:
                check_rate(name, value)
        check_positive("decay", decay)
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
        self.known: Callable[[Batch], tuple[int, Tensor]] | None = None
        """Gives, for a batch with `numbers`, the layer where the backbone begins and the states "b t d" there."""
        self.recipe = {}
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
    def first_layer(self) -> int:
        """The first layer that the method prompts, from 0; the number of layers where it prompts none of them."""
        return 0

    @property
    def frozen_layers(self) -> int:
        """Number of the lowest layers that compute the same of a row in every epoch, once the weights are loaded.

        There are none with dropout, or where tensors of the backbone itself are trained (`backbone_parameters`).
        """
        changes = self.hparams["backbone_dropout"] or self.backbone_parameters(self.backbone)
        return 0 if changes else self.first_layer

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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed())  # the loading has drawn numbers, more or fewer in several processes
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
        if self.backbone is None:
            raise InputError("backbone: is not loaded yet; call configure_model(), as Lightning's Trainer does.")
        begin = self.known(batch) if self.known and "numbers" in batch else None
        hidden = self.backbone(batch, self.prompts(batch), begin, self.head.reads(batch, self.backbone))
        return self.head(hidden, batch, self.backbone)

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """AdamW; a learning rate for each of prompt, head and backbone."""
        p = self.hparams
        optimizer = adamw(self.groups(), self.rates, p["weight_decay"])
        return {
            "optimizer": optimizer,
            "lr_scheduler": scheduler(optimizer, self.trainer, p["schedule"], p["warmup"], p["decay"]),
        }

    # ---- the start of a fit

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
        if not self._started:
            self.start()
            self._started = True
        self._gradients_checked = False

    def start(self) -> None:
        """Read initial values from training rows (`ptune.tuning.sample`); called before the first step of a new run.

        It is not called where the trained tensors were loaded, from a checkpoint or a file of prompts.
        """

    def check_data(self, data: Any) -> None:
        """Check ptune's data module before the first batch; plain loaders (None) and others' modules are not checked.

        How it reads a row is kept in `recipe`, which is saved with the tensors.

        Raises:
            InputError: the data module tokenizes for another backbone or lacks the method's input slots, or its longest
                text and the shift of positions exceed the positions of the backbone.
        """
        room = self.backbone.room
        if not is_own(data):
            return
        if data.backbone != self.hparams["backbone"]:  # token ids of another vocabulary would train without a word
            raise InputError(
                f"data.backbone: {data.backbone!r}, but {type(self).__name__} reads {self.hparams['backbone']!r}; give "
                "both the same backbone."
            )
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

    def on_train_start(self) -> None:
        """Continue a resumed run with the batches that it has not seen in its epoch."""
        resume.place_loader(self.trainer)
