"""`python -m ptune.inspect RUN_DIR`: what a trained prompt is and how much attention it gets.

Prints Markdown tables: the tokens of the vocabulary nearest to each vector at the input; by layer, the norms of a
prefix's keys and values, and how much attention the text pays to the prompt, on a batch of the run's validation data.
RUN_DIR/inspect.png shows the same as a picture, which needs `ptune[plot]`.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ptune.backbone.depth import filled
from ptune.backbone.tokenizer import load
from ptune.backbone.traits import numbered
from ptune.errors import InputError, printable, require
from ptune.heads import Batch
from ptune.run.command import TRUST, Arguments, place, printed
from ptune.run.disk import told
from ptune.run.finished import read
from ptune.tuning.tuner import PromptTuner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEAREST = 3
"""Tokens listed for each vector."""


@final
@dataclass(frozen=True)
class Findings:
    """What `look` finds; norms are means over vectors, a key or value taken over all heads."""

    layers: tuple[int, ...]
    """Numbers of the layers that the rows of `attention` and `norms` belong to."""
    attention: Float[Tensor, "l p"] | None
    """Attention that a token of the text pays to each vector, mean over heads and tokens; None for gated prefixes,
    whose attention is normalised by itself, and for families whose modules do not return attention weights."""
    even: Float[Tensor, " l"] | None
    """What the sums of `attention` would be if each token attended equally to all positions that its mask allows."""
    norms: Float[Tensor, "l two"] | None
    """Norms of the keys (0) and values (1) of a prefix; None for vectors at the input."""
    text_norms: Float[Tensor, "l two"] | None
    """The same of the keys and values of a text without the prefix."""
    vectors: Float[Tensor, "p e"] | None
    """Vectors in the slots, where they depend on the text those of the first one; None for a prefix."""
    tokens: list[tuple[list[str], list[str]]]
    """For each vector at the input the nearest tokens by cosine and by L2 distance, nearest first; none for vectors
    that enter at a layer above, which are no word embeddings."""
    matrices: Float[Tensor, " l"] | None = None
    """Norms of a memory's matrices, means over heads; no token attends to a memory, which has nothing else to show."""


@torch.no_grad()
def look(model: PromptTuner, batch: Batch) -> Findings:
    """Read off the prompt of a model that was built with `attention: eager` and is in eval mode.

    Raises InputError for a method without prompts.
    """
    prompts = model.prompts(batch)
    if prompts is None:
        raise InputError(f"model: {type(model).__name__} has no prompt to inspect.")
    if prompts.memory is not None:
        found = torch.stack([layer.norm(dim=(1, 2)).mean() for layer in prompts.memory]).cpu()
        layers = prompts.layers or tuple(range(model.spec.layers))
        return Findings(layers, None, None, None, None, None, [], found)
    backbone, text = model.backbone, batch["attention_mask"].bool()
    if prompts.prefix is None:
        layers, norms, text_norms = tuple(range(model.first_layer, model.spec.layers)), None, None
        slots = batch["slots"]
        if prompts.late is not None:
            states = filled(backbone.below(batch, prompts.late.layer), batch, prompts.late)
            vectors, tokens = states[0, slots[0]], []
        else:
            vectors = prompts.embeds[0]  # type: ignore[index]
            table: Tensor = backbone.model.get_input_embeddings().weight  # type: ignore[assignment]
            # Words are read as the model reads them, which Gemma's scales.
            words = backbone.embed(torch.arange(len(table), device=table.device)[None])[0].float()
            tokens = nearest_tokens(vectors, words, model.hparams["backbone"])
        p = len(vectors)
        text = text & ~slots
    else:
        layers, vectors, tokens = prompts.layers or tuple(range(model.spec.layers)), None, []
        norms = _norms(prompts.prefix)
        text_norms = _norms(backbone.keys_values(batch["input_ids"][:1, text[0]]))[list(layers)]
        slots, p = None, prompts.prefix[0].shape[3]

    def paid(weights: Float[Tensor, "b t s"]) -> Float[Tensor, "n p"]:
        """What the n tokens of the text pay to the prompt; s is the prefix and the input."""
        if slots is None:
            return weights[..., :p][text]
        return weights.mT[slots].view(len(slots), p, -1).mT[text]

    seen = _attention(model, batch) if prompts.gate is None else {}
    attention, even = [], []
    for weights in (seen[layer] for layer in layers if seen):
        attention.append(paid(weights.mean(1)).mean(0))
        visible = (weights > 0).any(1).float()
        even.append((paid(visible).sum(1) / visible.sum(2)[text]).mean())
    return Findings(
        layers=layers,
        attention=torch.stack(attention).cpu() if attention else None,
        even=torch.stack(even).cpu() if even else None,
        norms=norms,
        text_norms=text_norms,
        vectors=vectors,
        tokens=tokens,
    )


def nearest_tokens(
    vectors: Float[Tensor, "p e"], words: Float[Tensor, "v e"], backbone: str
) -> list[tuple[list[str], list[str]]]:
    """For each vector the NEAREST tokens of the vocabulary by cosine and by L2 distance, nearest first."""
    tokenizer = load(backbone)
    words = words[: len(tokenizer)]  # some tables are padded
    cosine = F.normalize(vectors, dim=1) @ F.normalize(words, dim=1).T
    found = cosine.topk(NEAREST).indices, torch.cdist(vectors, words).topk(NEAREST, largest=False).indices

    def names(ids: list[int]) -> list[str]:
        return [str(token) for token in tokenizer.convert_ids_to_tokens(ids)]

    return [
        (names(by_cosine), names(by_distance))
        for by_cosine, by_distance in zip(*(ids.tolist() for ids in found), strict=True)
    ]


def _norms(prefix: Iterable[Float[Tensor, "two b h p k"]]) -> Float[Tensor, "l two"]:
    return torch.stack([layer.float().norm(dim=(2, 4)).mean((1, 2)) for layer in prefix]).cpu()


def _attention(model: PromptTuner, batch: Batch) -> dict[int, Float[Tensor, "b heads t s"]]:
    """Attention weights by layer; {} where the modules of a family do not return them."""
    seen: dict[int, Tensor] = {}

    def record(module: nn.Module, args: tuple, output: object) -> None:
        values = output if isinstance(output, tuple) else ()
        found = [value for value in values if isinstance(value, Tensor) and value.ndim == 4]
        if found:
            seen[module.prefix_layer] = found[-1].float()  # type: ignore[index]

    hooks = [module.register_forward_hook(record) for module in numbered(model.backbone.model)]
    try:
        model.backbone(batch, model.prompts(batch))
    finally:
        for hook in hooks:
            hook.remove()
    return seen if len(seen) == model.spec.layers else {}


def tables(findings: Findings, title: str) -> str:
    """The findings in Markdown."""
    parts = [f"# {printable(title)}"]
    if findings.vectors is not None:
        rows = [[str(i), f"{vector.norm():.3f}"] for i, vector in enumerate(findings.vectors)]
        names = ["vector", "norm"]
        if findings.tokens:
            names += ["nearest by cosine", "nearest by L2"]
            for row, found in zip(rows, findings.tokens, strict=True):
                row += (" ".join(f"`{_plain(token)}`" for token in near) for near in found)
        parts.append(_markdown(names, rows))
    head, columns = ["layer"], [[str(layer) for layer in findings.layers]]
    if findings.norms is not None and findings.text_norms is not None:
        for i, name in enumerate(("key", "value")):
            for whose, norms in (("prompt", findings.norms), ("text", findings.text_norms)):
                head.append(f"{name} norm, {whose}")
                columns.append([f"{value:.3f}" for value in norms[:, i].tolist()])
    if findings.matrices is not None:
        head.append("norm of a head's matrix")
        columns.append([f"{value:.3f}" for value in findings.matrices.tolist()])
    if findings.attention is not None and findings.even is not None:
        for name, shares in (("attention to the prompt", findings.attention.sum(1)), ("if even", findings.even)):
            head.append(name)
            columns.append([f"{value:.1%}" for value in shares.tolist()])
    if len(columns) > 1:
        parts.append(_markdown(head, [list(row) for row in zip(*columns, strict=True)]))
    if findings.attention is None and findings.matrices is None:
        parts.append(
            "There are no attention weights: the prefix is gated, or the backbone's modules do not return them."
        )
    return "\n\n".join(parts)


def _plain(token: str) -> str:
    """A token as it can stand in a table's cell: control characters escaped, Markdown's own replaced."""
    return printable(token).replace("|", "\\|").replace("`", "'")


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def picture(findings: Findings, title: str) -> "Figure":
    """Attention to the whole prompt by layer, attention to each vector, and norms, side by side.

    The middle panel divides by the layer's mean, so that vectors are compared with each other, not layers.
    """
    shown = findings.attention is not None
    figure = require("matplotlib.figure", "plot").Figure(figsize=(14 if shown else 10, 4.2), layout="constrained")
    figure.suptitle(title)
    *left, last = figure.subplots(1, 3 if shown else 2)
    labels = [str(layer) for layer in findings.layers]
    if findings.attention is None or findings.even is None:
        left[0].text(0.5, 0.5, "no attention weights\nto show", ha="center", va="center")
        left[0].set_axis_off()
    else:
        left[0].plot(labels, (100 * findings.attention.sum(1)).tolist(), "C0-", marker="o", label="of the text")
        left[0].plot(labels, (100 * findings.even).tolist(), "k--", marker=".", label="if it were even")
        left[0].set(title="attention to the prompt", xlabel="layer", ylabel="%", ylim=(0, None))
        _legend(left[0], 2)
        relative = findings.attention / findings.attention.mean(1, keepdim=True).clamp(min=1e-12)
        far = max(float((relative - 1).abs().max()), 0.01)
        image = left[1].imshow(relative.numpy(), aspect="auto", cmap="RdBu_r", vmin=1 - far, vmax=1 + far)
        left[1].set(title="attention to each vector / layer's mean", xlabel="vector", ylabel="layer")
        left[1].set_yticks(range(len(labels)), labels)
        figure.colorbar(image, ax=left[1])
    if findings.matrices is not None:
        last.bar(labels, findings.matrices.tolist())
        last.set(title="mean norm", xlabel="layer")
    elif findings.norms is None or findings.text_norms is None:
        norms = findings.vectors.norm(dim=1).tolist()  # type: ignore[union-attr]
        last.bar(range(len(norms)), norms)
        last.set(title="norm", xlabel="vector")
    else:
        for i, name in enumerate(("key", "value")):
            for whose, values, style in (("prompt", findings.norms, "-"), ("text", findings.text_norms, ":")):
                last.plot(labels, values[:, i].tolist(), f"C{i}{style}", marker=".", label=f"{name}, {whose}")
        last.set(title="mean norm", xlabel="layer", yscale="log")
        _legend(last, 2)
    return figure


def _legend(axes: "Axes", columns: int) -> None:
    """A legend below the axes, where it covers no curve."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, frameon=False)


def run(args: list[str] | None = None) -> str:
    """Inspect the run that the command line names; return the tables, and where the picture is."""
    parser = Arguments("python -m ptune.inspect", description="Inspect the prompt of a finished run.")
    parser.add_argument("run_dir", type=place, help="directory of a finished run, or exported folder")
    parser.add_argument("--data.path", metavar="DIR", dest="path", help="where the rows are, if not where the run says")
    parser.add_argument("--no-picture", action="store_true", help="tables alone; needs no matplotlib")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    arguments = parser.parse_args(args)
    file = arguments.run_dir / "inspect.png"
    if not arguments.no_picture:
        require("matplotlib", "plot", ", or use --no-picture for the tables alone")
        if file.exists():
            raise InputError(f"{file}: exists; move it away, or use --no-picture.")
    moved = () if arguments.path is None else ("--data.path", arguments.path)
    model, data = read(arguments.run_dir, "--model.attention", "eager", *moved, trust=arguments.trust)
    data.setup("fit")
    findings = look(model, next(iter(data.val_dataloader())))
    title = f"{type(model).__name__} on {model.head_spec.task}"
    text = tables(findings, f"{title}: {arguments.run_dir}")
    if arguments.no_picture:
        return text
    with told(file, "use --no-picture for the tables alone."):
        picture(findings, title).savefig(file, dpi=150)
    return f"{text}\n\nPicture: {file}"


def main(args: list[str] | None = None) -> int:
    """Run the command line `args`; the exit code: 0, or 2 for a mistake in the input, told in one sentence."""
    return printed(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
