"""`python -m ptune.backbones [NAME ...]`: what works with which backbone, measured.

Without names, a Markdown table of families: a tiny random model of each is built from its config alone (no network) and
every cell is tried on it. With names (hub ids, folders, `package:NAME/PATH`, or model types such as `llama`): the same
in sentences, with the reason of what does not work.
"""

import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

from ptune.backbone import Backbone
from ptune.backbone.lm import auto
from ptune.backbone.pretrained import Dtype, describe
from ptune.errors import InputError
from ptune.heads import Batch, head_for
from ptune.methods.fine_tuning import FineTuning
from ptune.methods.p_tuning_v2 import PTuningV2
from ptune.methods.prompt_tuning import PromptTuning
from ptune.prompts import Prompts
from ptune.tasks.spec import HeadSpec
from ptune.tuning.tuner import PromptTuner

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 64,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
POSITIONS = {"max_position_embeddings": 64}
GROUPS = POSITIONS | {"num_key_value_heads": 2, "head_dim": 8}
GEMMA = {"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8}
WINDOWS = {"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2}
SIGHT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
PICTURES = {"vision_config": SIGHT | {"num_key_value_heads": 2, "image_size": 28, "patch_size": 14}}
FAMILIES: dict[str, dict] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "albert"), POSITIONS),
    **dict.fromkeys(("distilbert", "mpnet", "deberta", "deberta-v2", "modernbert", "eurobert"), POSITIONS),
    **dict.fromkeys(("megatron-bert", "rembert", "roformer", "esm", "nomic_bert", "big_bird", "longformer"), POSITIONS),
    "xlnet": {"d_head": 8},
    **dict.fromkeys(("t5", "mt5", "bart", "mbart"), POSITIONS),
    **dict.fromkeys(("openai-gpt", "gpt2", "gpt_neox", "opt", "bloom", "falcon", "mpt", "phi"), POSITIONS),
    "gptj": POSITIONS | {"rotary_dim": 4},
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3", "stablelm", "starcoder2"), GROUPS),
    **dict.fromkeys(("qwen2", "qwen3", "olmo2", "granite", "smollm3"), GROUPS),
    "gpt_oss": GROUPS | {"num_local_experts": 4},
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), GROUPS),
    "gemma3n_text": GROUPS | WINDOWS | GEMMA | {"num_kv_shared_layers": 2, "laurel_rank": 4, "altup_num_inputs": 2},
    "gemma4_text": GROUPS | WINDOWS | GEMMA | {"global_head_dim": 16},
    "gemma3": PICTURES | {"text_config": SIZES | GROUPS},
    "gemma4": PICTURES
    | {"text_config": SIZES | GROUPS | WINDOWS | GEMMA | {"global_head_dim": 16}, "audio_config": None},
    "mamba": POSITIONS,
}
"""Model types of the table, and the sizes of the tiny model that differ from `SIZES`."""

HEADS = {
    "classify": HeadSpec("probe", "classify", ("no", "yes"), ("accuracy",), "accuracy"),
    "regress": HeadSpec("probe", "regress", (), ("pearson",), "pearson"),
    "choice": HeadSpec("probe", "choice", (), ("accuracy",), "accuracy"),
    "span": HeadSpec("probe", "span", (), ("f1",), "f1"),
    "tag": HeadSpec("probe", "tag", ("O", "B-X", "I-X"), ("accuracy",), "accuracy"),
}
P = 3


def tiny(model_type: str, folder: str) -> str:
    """Write a random model of this type and the sizes above into `folder`, its language model into `folder`/lm.

    Raises InputError where its config refuses the sizes.
    """
    try:
        config = AutoConfig.for_model(model_type, **SIZES | FAMILIES.get(model_type, POSITIONS))
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
    except Exception as error:  # each family checks its sizes in its own way
        raise InputError(
            f"model type {model_type!r}: no tiny model can be made of it ({str(error).splitlines()[0]}); "
            "give a folder or a hub id."
        ) from error
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # no weight 0, so that attention is not uniform and every weight has a gradient
        for value in model.parameters():
            value.add_(torch.empty_like(value).normal_(std=0.1, generator=generator))
    model.save_pretrained(folder)
    spec = describe(folder)
    if spec.lm is not None:
        auto(spec).from_config(config).save_pretrained(Path(folder, "lm"))
    return folder


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
    """With token types, which some weights of XLNet need, where the family takes them."""
    try:
        return model(batch | {"token_type_ids": torch.zeros_like(batch["input_ids"])})
    except TypeError:
        return model(batch)


def tuned(method: type[PromptTuner], name: str, **arguments) -> str:
    """`yes` if with every head all that the method trains gets a finite gradient, else the heads with which it does."""
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
    """How the language-model head reads a word, if its scores of chosen words are those it gives to them among all."""
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
    """Whether the loss has the same gradient with it."""
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
    """Attention functions of the family that agree with its plain one; flash is what transformers says."""
    found, plain = [], None
    for function in ("eager", "sdpa", "flex"):
        try:
            backbone = Backbone(name, attention=function)
            if backbone.model.config._attn_implementation != f"ptune_{function}":
                continue
            states = hidden(backbone)
        except InputError:
            continue
        plain = states if plain is None else plain
        if near(states, plain, 1e-4):
            found.append(function)
    if found and Backbone(name).model._supports_flash_attn:
        found.append("flash*")
    return ", ".join(found) or "its own"


def padding(name: str) -> str:
    """Sides on which padding changes nothing, and `packed` where texts in one row do not see each other."""
    backbone = Backbone(name)
    sides = ["right"] + ["left"] * near(hidden(backbone, left=True), hidden(backbone), 1e-4)
    return ", ".join(sides + ["packed"] * backbone.packs)


def dtypes(name: str) -> str:
    """Precisions of a frozen backbone with which it computes about the same."""
    plain, found = hidden(Backbone(name)), ["fp32"]
    slacks: dict[Dtype, float] = {"bf16": 0.1, "int8": 0.2, "int4": 0.8}
    for dtype, slack in slacks.items():
        try:
            states = hidden(Backbone(name, dtype=dtype))
        except (InputError, RuntimeError):  # no bitsandbytes, or a layer that is not a plain product
            continue
        if near(states, plain, slack):
            found.append(dtype)
    return ", ".join(found)


COLUMNS: dict[str, Callable[[str], str]] = {
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
"""What is tried, and how: a function of a backbone's name that returns the cell, or raises with the reason for `no`."""


def probe(name: str) -> tuple[dict[str, str], dict[str, str]]:
    """The cells of a backbone's line, and the reasons of those that are `no`."""
    cells, reasons = {}, {}
    for column, measure in COLUMNS.items():
        try:
            cells[column] = measure(name)
        except InputError as error:
            cells[column], reasons[column] = "no", str(error)
        except Exception as error:  # whatever a family's own code raises is what the user would meet
            cells[column] = "no"
            reasons[column] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return cells, reasons


def line(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main(names: list[str]) -> None:
    """Print the table, or sentences about `names`."""
    if not names:
        print(line(["family", *COLUMNS]), line(["---"] * (1 + len(COLUMNS))), sep="\n")
    notes = []
    for name in names or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                if name in CONFIG_MAPPING:
                    cells, reasons = probe(tiny(name, folder))
                else:
                    describe(name)  # once, not for every column: offline, the hub is asked again and again
                    cells, reasons = probe(name)
            except InputError as error:
                cells, reasons = dict.fromkeys(COLUMNS, "no"), dict.fromkeys(COLUMNS, str(error))
            reasons = {column: reason.replace(repr(folder), repr(name)) for column, reason in reasons.items()}
        if names:
            print(f"{name}", *(f"  {key}: {reasons.get(key) or cell}" for key, cell in cells.items()), sep="\n")
        else:
            print(line([name, *cells.values()]), flush=True)
            for reason in dict.fromkeys(reasons.values()):
                columns = [column for column, other in reasons.items() if other == reason]
                notes.append(f"- {name}, {', '.join(columns)}: {reason}")
    print("\nyes: with every head (classify, regress, choice, span, tag). *: on a GPU with flash-attn, not tried here.")
    print(*notes, sep="\n")


if __name__ == "__main__":
    torch.set_num_threads(1)  # tiny models gain nothing from more
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    main(sys.argv[1:])
