"""Every method once, and its variants: how it is built, and which tensors it trains on the tiny BERT of the tests."""

import inspect
from dataclasses import dataclass, field
from typing import Any

from ptune.methods.apt import APT
from ptune.methods.bitfit import BitFit
from ptune.methods.dept import DePT
from ptune.methods.fine_tuning import FineTuning
from ptune.methods.late_prompt_tuning import LatePromptTuning
from ptune.methods.linear_probe import LinearProbe
from ptune.methods.lora import PEFT, LoRA
from ptune.methods.manual import ManualPrompt
from ptune.methods.multitask_prompt import MultitaskPrompt
from ptune.methods.p_tuning import PTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prefix_memory import PrefixMemory
from ptune.methods.prompt_tuning import PromptTuning
from ptune.methods.residual_prompt_tuning import ResidualPromptTuning
from ptune.tuning.tuner import PromptTuner

WIDTH, INNER, LAYERS, HEADS = 32, 48, 3, 4
"""d, the width of the feed-forward layers, l and h of the tiny BERT."""
BERT = (60 + 48 + 2 + 2) * WIDTH + LAYERS * (4 * (WIDTH**2 + WIDTH) + 2 * WIDTH * INNER + INNER + WIDTH + 4 * WIDTH)
BERT += WIDTH**2 + WIDTH
"""Its parameters: embeddings and their normalisation, layers, pooler."""


@dataclass(frozen=True)
class Case:
    """A method with arguments."""

    method: type[PromptTuner]
    arguments: dict[str, Any]
    trained: set[str] | None
    """Names of the trained tensors on the tiny BERT, beside the head; None: all of the backbone."""
    count: int
    """How many numbers these are."""
    folded: str = ""
    """The one tensor of its own that a file of prompts holds, for a prompt that is computed while it is trained."""
    certain: dict[str, Any] = field(default_factory=dict)
    """Arguments that switch the method's own dropout off."""
    units: frozenset[str] = frozenset()
    """Names of what a checkpoint holds beside trained tensors: the units that these are in."""

    @property
    def prompts(self) -> bool:
        """Whether the method has tensors of its own."""
        return self.trained is not None and any(name.startswith("prompt.") for name in self.trained)

    @property
    def frozen(self) -> bool:
        """Whether the method leaves the backbone as it is."""
        return self.trained is not None and not any(name.startswith("backbone.") for name in self.trained)

    def given(self, length: int | None = None, certain: bool = False) -> dict[str, Any]:
        """The arguments; with `length`, if the method has one."""
        takes = any("length" in inspect.signature(base.__init__).parameters for base in self.method.__mro__)
        own = {"length": length} if length and takes else {}
        return self.arguments | own | (self.certain if certain else {})


layers = [f"backbone.model.encoder.layer.{i}." for i in range(LAYERS)]
mlp = {"prompt.encoder.embedding"} | {f"prompt.encoder.mlp.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}
encoder = {"prompt.embedding"} | {f"prompt.mlp.{i}.{name}" for i in (0, 2) for name in ("weight", "bias")}
lstm = {f"prompt.lstm.{x}_l{i}" for x in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for i in (0, 1)}
lstm |= {f"{name}_reverse" for name in lstm}
queries = {f"{i}attention.self.{x}.lora_{y}.default.weight" for i in layers for x in ("query", "value") for y in "AB"}
scaled = ("attention.self.key", "attention.self.value", "attention.output.dense", "output.dense")
scales = {f"{i}{x}.ia3_l.default" for i in layers for x in scaled}
biased = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
biased += ("attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm")
biases = {f"{i}{x}.bias" for i in layers for x in biased}
biases |= {"backbone.model.embeddings.LayerNorm.bias", "backbone.pooler.dense.bias"}
BIASES = WIDTH + LAYERS * (7 * WIDTH + INNER) + WIDTH
gains = {f"{name.removesuffix('bias')}weight" for name in biases if name.endswith("LayerNorm.bias")}
GAINS = (1 + 2 * LAYERS) * WIDTH

P = 20
"""The default length of a prefix."""
FEATURES = 2 * LAYERS * WIDTH
VECTORS = {"length": 2}
"""The slots that test_tuner's texts have."""
LSTM = 2 * 2 * 4 * (WIDTH // 2) * (WIDTH + WIDTH // 2 + 2)
"""Layers, directions, gates, rows of weights and biases."""
PERCEPTRON = 2 * (WIDTH**2 + WIDTH)
masks = {"prompt.of_vector", "prompt.of_dimension"}
network = {"prompt.vectors"} | {f"prompt.network.{i}.{name}" for i in (0, 2, 3) for name in ("weight", "bias")}
flat, no_dropout = {"prompt.encoder.flat"}, {"prefix_dropout": 0.0}
scale = frozenset({"prompt.encoder.scale"})
generator = {f"prompt.{i}.{name}" for i in ("down", "up") for name in ("weight", "bias")}

TABLE = {
    "linear probe": Case(LinearProbe, {}, set(), 0),
    "fine-tuning": Case(FineTuning, {}, None, BERT, "", {"backbone_dropout": False}),
    "prefix": Case(PTuningV2, {}, flat, P * FEATURES, "", no_dropout),
    "prefix, mlp": Case(
        PTuningV2, {"mlp": 8}, mlp, P * WIDTH + WIDTH * 8 + 8 + 8 * FEATURES + FEATURES, *flat, no_dropout
    ),
    "prefix, identity": Case(
        PTuningV2, {"init": "identity"}, flat | {"prompt.gate"}, P * FEATURES + LAYERS * HEADS, "", no_dropout, scale
    ),
    "prefix, hidden": Case(
        PTuningV2, {"form": "hidden"}, {"prompt.encoder.vectors"}, P * LAYERS * WIDTH, *flat, no_dropout
    ),
    "prefix, last layer": Case(PTuningV2, {"layers": "last:1"}, flat, P * 2 * WIDTH, "", no_dropout),
    "prefix, companions": Case(
        PTuningV2,
        {"also": ["bias", "layer_norm"], "also_lr": 0.1},
        flat | biases | gains,
        P * FEATURES + BIASES + GAINS,
        "",
        no_dropout,
    ),
    "memory": Case(
        PrefixMemory, {}, {f"prompt.matrices.{i}" for i in range(LAYERS)}, LAYERS * HEADS * (WIDTH // HEADS) ** 2
    ),
    "soft prompt": Case(PromptTuning, VECTORS | {"init": "random"}, {"prompt.vectors"}, 2 * WIDTH),
    "masked prompt": Case(
        MultitaskPrompt, VECTORS, {"prompt.vectors"} | masks, 2 * WIDTH + 2 + WIDTH, "prompt.vectors"
    ),
    "residual prompt": Case(
        ResidualPromptTuning,
        VECTORS | {"bottleneck": 8},
        network,
        2 * WIDTH + 2 * 8 * WIDTH + 8 + 3 * WIDTH,
        "prompt.vectors",
    ),
    "decomposed prompt": Case(
        DePT,
        VECTORS | {"tokens": 48, "rank": 3},
        {"prompt.vectors", "prompt.a", "prompt.b"},
        2 * WIDTH + (48 + WIDTH) * 3,
    ),
    "encoded prompt": Case(PTuning, VECTORS, encoder | lstm, 2 * WIDTH + LSTM + PERCEPTRON, "prompt.vectors"),
    "encoded prompt, mlp": Case(
        PTuning, VECTORS | {"encoder": "mlp"}, encoder, 2 * WIDTH + PERCEPTRON, "prompt.vectors"
    ),
    "adaptive prefix": Case(
        APT,
        {},
        flat | {"prompt.weight", "prompt.scale"},
        P * FEATURES + LAYERS * (WIDTH * P + 1),
        "",
        no_dropout,
    ),
    "late prompt": Case(LatePromptTuning, VECTORS | {"bottleneck": 8}, generator, WIDTH * 8 + 8 + 8 * WIDTH + WIDTH),
    "lora": Case(LoRA, {"rank": 2}, queries, LAYERS * 2 * 2 * 2 * WIDTH),
    "ia3": Case(PEFT, {"config": "IA3Config"}, scales, LAYERS * (3 * WIDTH + INNER)),
    "bitfit": Case(BitFit, {}, biases, BIASES),
    "manual": Case(ManualPrompt, {}, set(), 0),
}
"""The cases by name; the first of a method is the method itself."""


def names(*, prompt: bool | None = None, frozen: bool | None = None, variants: bool = True) -> list[str]:
    """Cases of the methods that train something.

    Args:
        prompt: those that have tensors of their own, or those that have none.
        frozen: those that leave the backbone as it is, or those that train some of it.
        variants: those of every method, or the first of each alone.
    """
    found: dict[str, type[PromptTuner]] = {}
    for name, case in TABLE.items():
        fits = case.method.trains and prompt in (None, case.prompts) and frozen in (None, case.frozen)
        if fits and (variants or case.method not in found.values()):
            found[name] = case.method
    return list(found)
