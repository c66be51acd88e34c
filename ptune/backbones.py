"""`python -m ptune.backbones [NAME ...]`: what works with which backbone, measured.

Without names, the generated part of `ptune/backbone/README.md`: the families, one line a capability, and the reasons of
what does not work. A tiny random model of each family is built from its config alone (no network), and every capability
is tried on it. With names (hub ids, folders, `package:NAME/PATH`, or model types such as `llama`): the same about each
name, in sentences.
"""

import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import CONFIG_MAPPING

from ptune.backbone import Backbone
from ptune.backbone.pretrained import Dtype, describe
from ptune.backbone.private import implementation_of, supports
from ptune.backbone.tiny import FAMILIES, tiny
from ptune.backbone.traits import unexpected
from ptune.errors import InputError, first_line, printable
from ptune.heads import Batch, head_for
from ptune.methods.fine_tuning import FineTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import PromptTuning
from ptune.prompts import Prompts
from ptune.run.command import Arguments, guarded
from ptune.run.given import check_path
from ptune.tasks.spec import HeadSpec
from ptune.tuning.tuner import PromptTuner

HEADS = {
    "classify": HeadSpec("probe", "classify", ("no", "yes"), ("accuracy",), "accuracy"),
    "regress": HeadSpec("probe", "regress", (), ("pearson",), "pearson"),
    "choice": HeadSpec("probe", "choice", (), ("accuracy",), "accuracy"),
    "span": HeadSpec("probe", "span", (), ("f1",), "f1"),
    "tag": HeadSpec("probe", "tag", ("O", "B-X", "I-X"), ("accuracy",), "accuracy"),
}
P = 3


def batch_for(kind: str = "classify", slots: int = 0, left: bool = False) -> Batch:
    """Four texts of 9 to 6 tokens, padded on the right or left, with labels for this kind of head."""
    places = torch.arange(9)
    mask = (places < torch.tensor([[9], [8], [7], [6]])).long()
    ids = (torch.arange(36).view(4, 9) % 9 + 5) * mask + (1 - mask)
    labels = {
        "regress": torch.tensor([0.0, 1.0, 2.0, 3.0]),
        "choice": torch.tensor([0, 1]),
        "span": torch.tensor([[1, 2]] * 4),
        "tag": torch.where(mask.bool(), ids % 3, -100),
    }.get(kind, torch.tensor([0, 1, 0, 1]))
    if left:
        shift = (places + mask.sum(1, keepdim=True)) % 9
        mask, ids = mask.gather(1, shift), ids.gather(1, shift)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if slots:
        batch["slots"] = ((places > 0) & (places <= slots)).expand(4, -1)
    return batch


def scores(model: PromptTuner, batch: Batch) -> Tensor:
    """The model's scores, with token types where the family takes them: some weights of XLNet need them."""
    try:
        return model(batch | {"token_type_ids": torch.zeros_like(batch["input_ids"])})
    except TypeError as error:
        if not unexpected(error, "token_type_ids"):
            raise
        return model(batch)


def tuned(method: type[PromptTuner], name: str, **arguments) -> str:
    """`yes` if with every head every trained weight gets a finite gradient, else the heads with which it does."""
    model = method(backbone=name, head=HEADS["classify"], **arguments)
    model.configure_model()
    good = []
    for kind, spec in HEADS.items():
        model.head = head_for(spec, model.spec, 0.0)
        model.zero_grad()
        batch = batch_for(kind, model.slots)
        loss, _ = model.head.loss(scores(model, batch), batch)
        loss.backward()
        unread = () if model.head.pools else ("backbone.pooler.",)
        gradients = {key: value.grad for key, value in model.trained().items() if not key.startswith(unread)}
        finite = all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
        own = [value.grad for group in ("prompt", "head") for value in model.groups().get(group, {}).values()]
        if finite and all(gradient is not None and gradient.any() for gradient in own):
            good.append(kind)
    return "yes" if len(good) == len(HEADS) else ", ".join(good) or "no"


@torch.no_grad()
def language_model(name: str) -> str:
    """`masked` or `causal`, if the head's scores of chosen words are those that it gives to them among all words."""
    whole = Path(name, "lm")
    backbone = Backbone(str(whole) if whole.is_dir() else name, lm=True).eval()
    states, words = backbone(batch_for() | {"answer_at": torch.ones(4, 1, dtype=torch.long)}), torch.tensor([5, 7, 9])
    chosen, among = backbone.lm_scores(states, words), backbone.lm_scores(states)[..., words]
    return str(backbone.spec.lm) if near(chosen, among, 1e-4) else "no"


@torch.no_grad()
def hidden(backbone: Backbone, left: bool = False) -> Tensor:
    """Hidden states of the text, under a prefix where the backbone takes one: "n d"."""
    spec, batch = backbone.spec, batch_for(left=left)
    generator = torch.Generator().manual_seed(0)
    prefix = tuple(torch.randn(2, 1, h, P, k, generator=generator) for h, k in spec.kv_sizes)
    states = backbone.eval()(batch, None if backbone.traits.prefix_gap else Prompts(prefix=prefix))
    return states[batch["attention_mask"].bool()]


def near(one: Tensor, other: Tensor, slack: float) -> bool:
    """Whether two tensors differ by less than this part of the second."""
    return bool((one - other).norm() < slack * other.norm())


def shift(name: str) -> str:
    """Whether `shift_positions` reaches the family."""
    Backbone(name).require_shift()
    return "yes"


def checkpointing(name: str) -> str:
    """`yes` if the loss has the same gradient with checkpointing as without."""
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        model = PromptTuning(P, "random", backbone=name, head=HEADS["classify"], checkpointing=on, head_dropout=0.0)
        model.configure_model()
        batch = batch_for(slots=P)
        model.head.loss(scores(model, batch), batch)[0].backward()
        gradients.append(model.prompt.vectors.grad)
    return "yes" if near(gradients[1], gradients[0], 1e-3) else "no"


def attention(name: str) -> str:
    """The attention functions that agree with the family's plain one; flash is not run, transformers states it."""
    found, plain = [], None
    for function in ("eager", "sdpa", "flex"):
        try:
            backbone = Backbone(name, attention=function)
            if implementation_of(backbone.model) != f"ptune_{function}":
                continue
            states = hidden(backbone)
        except InputError:
            continue
        plain = states if plain is None else plain
        if near(states, plain, 1e-4):
            found.append(function)
    if found and supports(Backbone(name).model, "flash"):
        found.append("flash*")
    return ", ".join(found) or "its own"


def padding(name: str) -> str:
    """The sides on which padding changes nothing, and `packed` if texts in one row do not attend to each other."""
    backbone = Backbone(name)
    sides = ["right"] + ["left"] * near(hidden(backbone, left=True), hidden(backbone), 1e-4)
    return ", ".join(sides + ["packed"] * backbone.packs)


def dtypes(name: str) -> str:
    """The precisions of a frozen backbone whose hidden states are near those of fp32."""
    plain, found = hidden(Backbone(name)), ["fp32"]
    slacks: dict[Dtype, float] = {"bf16": 0.1, "int8": 0.2, "int4": 0.8}
    for dtype, slack in slacks.items():
        try:
            states = hidden(Backbone(name, dtype=dtype))
        except (InputError, RuntimeError):  # without bitsandbytes, or with a layer that computes its product itself
            continue
        if near(states, plain, slack):
            found.append(dtype)
    return ", ".join(found)


CAPABILITIES: dict[str, Callable[[str], str]] = {
    "prefix": lambda name: tuned(PTuningV2, name, length=P),
    "soft prompt": lambda name: tuned(PromptTuning, name, length=P, init="random"),
    "fine-tuning": lambda name: tuned(FineTuning, name),
    "LM head": language_model,
    "shift_positions": shift,
    "checkpointing": checkpointing,
    "attention": attention,
    "padding": padding,
    "backbone_dtype": dtypes,
}
"""The capabilities, each measured by a function of a backbone's name; an error it raises is the reason of a `no`."""


def probe(name: str) -> tuple[dict[str, str], dict[str, str]]:
    """What a backbone can do, by capability, and the reasons of each `no`."""
    cells, reasons = {}, {}
    for capability, measure in CAPABILITIES.items():
        try:
            cells[capability] = measure(name)
        except InputError as error:
            cells[capability], reasons[capability] = "no", str(error)
        except Exception as error:  # of any kind: a user of the capability would get the same error
            cells[capability] = "no"
            reasons[capability] = f"{type(error).__name__}: {first_line(error)}"
    return cells, reasons


def measured(name: str) -> tuple[dict[str, str], dict[str, str]]:
    """`probe` of a model type's tiny model, or of the backbone behind a name."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            if name in CONFIG_MAPPING:
                cells, reasons = probe(tiny(name, folder))
            else:
                describe(name)  # once, and not for every capability: offline, each would ask the hub again
                cells, reasons = probe(name)
        except InputError as error:
            cells, reasons = dict.fromkeys(CAPABILITIES, "no"), dict.fromkeys(CAPABILITIES, str(error))
    return cells, {key: reason.replace(repr(folder), repr(name)) for key, reason in reasons.items()}


def by_exception(capability: str, cells: dict[str, str]) -> str:
    """One line about a capability: what most families have, then what others have instead."""
    most, *others = (cell for cell, _ in Counter(cells.values()).most_common())
    differ = [f"{cell} for {', '.join(name for name in cells if cells[name] == cell)}" for cell in others]
    return f"- **{capability}**: {'; '.join([most, *differ])}"


def page(families: dict[str, tuple[dict[str, str], dict[str, str]]]) -> list[str]:
    """The lines of the generated part of `ptune/backbone/README.md`, from `measured` of each family."""
    lines = [f"{len(families)} families: {', '.join(families)}.", ""]
    for capability in CAPABILITIES:
        lines.append(by_exception(capability, {name: cells[capability] for name, (cells, _) in families.items()}))
    lines += [
        "",
        "yes: with every head (classify, regress, choice, span, tag). *: transformers states it, it was not run.",
    ]
    lines += ["int8 and int4 were found where bitsandbytes is installed.", "", "Reasons:", ""]
    reasons: dict[str, list[str]] = {}
    for name, (_, found) in families.items():
        for capability, reason in found.items():
            reason = reason.replace(f"backbone {name!r} (model type {name!r})", "it")
            reasons.setdefault(f"{capability}: {reason.removeprefix(f'{capability}: ')}", []).append(name)
    return [*lines, *(f"- {', '.join(names)}: {reason}" for reason, names in reasons.items())]


def run(names: list[str]) -> None:
    """Print the page, or sentences about `names`."""
    torch.set_num_threads(1)  # tiny models gain nothing from more
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not names:
            print(*page({family: measured(family) for family in FAMILIES}), sep="\n")
        for name in names:
            check_path("backbone", name)
            cells, reasons = measured(name)
            print(printable(name), *(f"  {key}: {reasons.get(key) or cell}" for key, cell in cells.items()), sep="\n")


def main(args: list[str] | None = None) -> int:
    """Run the command line `args`; the exit code: 0, or 2 for a mistake in the input, told in one sentence."""
    parser = Arguments("python -m ptune.backbones", description="Measure what works with which backbone.")
    what = "hub id, folder, package:NAME/PATH, or model type such as llama; none: all families of the page"
    parser.add_argument("names", nargs="*", metavar="NAME", help=what)
    return guarded(lambda: run(parser.parse_args(args).names))


if __name__ == "__main__":
    sys.exit(main())
