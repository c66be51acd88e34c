"""`PromptBank`: the prompts of several runs over one backbone, whose rows share a batch."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

from ptune.backbone import Backbone
from ptune.backbone.aligned import ALIGNED
from ptune.errors import InputError, nearest
from ptune.heads import Batch, head_class
from ptune.prompts import Prompts
from ptune.serving.loading import load
from ptune.serving.predictor import PART, Predictor, Row
from ptune.tuning.tuner import PromptTuner


@final
class PromptBank:
    """Several trained prompts and one backbone, which reads rows of different tasks, methods and seeds in one pass.

    Called on pairs of a prompt's name and a row, it returns the answers in their order, each in the form that
    `Predictor` gives it: `bank([("rte", ("He sleeps.", "He is awake.")), ("sst2", "a film")])`. Each row of a batch
    has the prefix or the soft prompt of its own run, and is then read by the head of that run. Prompts share a pass
    where they have one form: the same length, layers and shift of positions; a gated prefix, a late prompt, a memory
    and what is added to words have a pass of their own. The scores are those of each prompt alone to float error, since
    a batch of other rows is padded otherwise.

    Args:
        runs: what `ptune.load` takes, by the name that rows call it; or a list, whose entries are their own names.
        device: where to compute; "auto" takes the accelerator if there is one.
        batch_size: rows in a batch.
        backbone: the backbone's place, where it is no longer that of the runs.
        trust: let configurations name classes that are not ptune's: their code is executed.

    Raises:
        InputError: a run cannot be loaded, has another backbone than the first one or another precision of its weights,
            or changes the backbone itself, which rows of other runs would then share.
    """

    def __init__(
        self,
        runs: Mapping[str, str | Path] | Sequence[str | Path],
        device: str = "auto",
        batch_size: int = 32,
        backbone: str | None = None,
        trust: bool = False,
    ) -> None:
        named = runs if isinstance(runs, Mapping) else {str(path): path for path in runs}
        if not named:
            raise InputError("runs: a bank needs at least one prompt.")
        if batch_size < 1:
            raise InputError(f"batch_size: {batch_size} must be at least 1.")
        self.batch_size = batch_size
        self.prompts: dict[str, Predictor] = {}
        for name, path in named.items():
            predictor = load(path, device, backbone=backbone, trust=trust)
            self._check(name, predictor.model)
            self.prompts[name] = predictor
            self._share()

    def _check(self, name: str, model: PromptTuner) -> None:
        if not model.trains or model.backbone_parameters(model.backbone):
            what = "trains the backbone itself" if model.trains else "trains no prompt"
            raise InputError(f"{name}: {type(model).__name__} {what}, so it shares no backbone; load it by itself.")
        first = next(iter(self.prompts.values()), None)
        if first is not None and first.model.backbone.fingerprint != model.backbone.fingerprint:
            raise InputError(
                f"{name}: its backbone {model.spec.name!r} is not that of {next(iter(self.prompts))} "
                f"({first.model.spec.name!r}); load it by itself."
            )

    def _share(self) -> None:
        """Keep one `Backbone` in memory for all heads that read the same of it."""
        models = [predictor.model for predictor in self.prompts.values()]
        backbones = sorted((model.backbone for model in models), key=lambda own: (own.lm is None, own.pooler is None))
        for model in models:
            model.backbone = next(backbone for backbone in backbones if _suits(model, backbone))

    def __call__(self, rows: Iterable[tuple[str, Row]], *, batch_size: int | None = None) -> list[Any]:
        """The answers in the order of the rows.

        Args:
            rows: pairs of a prompt's name and a row as `Predictor` takes it.
            batch_size: rows in a batch; by default the bank's.

        Raises:
            InputError: a mistake in a row, with its number from 1.
        """
        rows, found, number = iter(rows), [], 0
        while part := list(islice(rows, PART)):
            names, checked = [], []
            for pair in part:
                number += 1
                try:
                    if not isinstance(pair, tuple | list) or len(pair) != 2:
                        raise InputError(f"{pair!r:.40} is no pair of a prompt's name and a row.")
                    name, row = pair
                    names.append(name)
                    checked.append(self.of(name).checked(row))
                except InputError as error:
                    raise InputError(f"row {number}: {error}") from error
            for name, answers in zip(names, self.answered(names, checked, batch_size=batch_size), strict=True):
                found.append(answers if self.prompts[name].data.several else answers[0])
        return found

    def answered(
        self,
        names: Sequence[str],
        checked: Sequence[dict],
        top_k: int | None = None,
        batch_size: int | None = None,
        done: Callable[[int], object] = lambda count: None,
    ) -> list[list[dict[str, Any]]]:
        """The answers to rows that are `checked`, as lists, best first, in the order of the rows.

        Args:
            names: the prompt of each row.
            checked: the rows.
            top_k: number of answers to a row; by default as many as its prompt gives without being asked.
            batch_size: rows in a batch; by default the bank's.
            done: is told numbers of rows as they are answered.
        """
        found: list[list[dict[str, Any]]] = [[] for _ in checked]
        for name, numbers, batch, scores in self.scored(names, checked, batch_size):
            spec, data = self.prompts[name].model.head_spec, self.prompts[name].data
            answers = head_class(spec.kind).answers(spec, scores, batch, top_k or data.top_k)
            for number, answer in zip(numbers, answers, strict=True):
                found[number] = data.presented(checked[number], answer)
            done(len(numbers))
        return found

    def of(self, name: str) -> Predictor:
        """The prompt of this name; InputError where there is none."""
        if name not in self.prompts:
            raise InputError(f"{name!r} is no prompt of the bank, {nearest(str(name), self.prompts)}")
        return self.prompts[name]

    def scored(
        self, names: Sequence[str], checked: Sequence[dict], batch_size: int | None = None
    ) -> Iterator[tuple[str, list[int], Batch, Tensor]]:
        """Rows that are `checked`, long texts first: a prompt's name, the numbers of its rows, their batch, its scores.

        A batch of the backbone holds rows of several prompts and is given in parts, one a prompt.
        """
        items: list[dict] = [{}] * len(checked)
        forms: dict[Any, list[int]] = {}
        for name in dict.fromkeys(names):
            numbers, data = [i for i, own in enumerate(names) if own == name], self.prompts[name].data
            for i, item in zip(numbers, data.items([checked[i] for i in numbers]), strict=True):
                items[i] = item
            forms.setdefault(self._form(name, data.collate([items[numbers[0]]])), []).extend(numbers)
        for numbers in forms.values():
            order, size = sorted(numbers, key=lambda i: -items[i]["length"]), batch_size or self.batch_size
            for start in range(0, len(order), size):
                chosen = sorted(order[start : start + size], key=lambda i: names[i])
                parts = {name: list(those) for name, those in groupby(chosen, key=lambda i: names[i])}
                yield from self._read(parts, items)

    @torch.inference_mode()
    def _form(self, name: str, batch: Batch) -> Any:
        """What prompts must have in common for one pass."""
        predictor = self.prompts[name]
        prompts = predictor.model.prompts(predictor.moved(batch)) or Prompts()
        prefix, embeds = prompts.prefix, prompts.embeds
        alone = (prompts.gate, prompts.input_gate, prompts.late, prompts.memory, prompts.added)
        keys = None if prefix is None else tuple((*layer.shape[:1], *layer.shape[2:]) for layer in prefix)
        return (
            keys,
            prompts.layers,
            prompts.shift,
            None if embeds is None else embeds.shape[1],
            batch["answer_at"].shape[1] if "answer_at" in batch else 0,  # places that XLNet is given
            name if any(own is not None for own in alone) else None,
            predictor.precision,
        )

    def _read(self, parts: dict[str, list[int]], items: list[dict]) -> Iterator[tuple[str, list[int], Batch, Tensor]]:
        """One pass of the backbone, and what each prompt's head reads of it."""
        first = self.prompts[next(iter(parts))]
        batches = {
            name: first.moved(self.prompts[name].data.collate([items[i] for i in numbers]))
            for name, numbers in parts.items()
        }
        with torch.inference_mode(), first.autocast():
            prompts = [self.prompts[name].model.prompts(batch) or Prompts() for name, batch in batches.items()]
            sizes = [len(batch["input_ids"]) for batch in batches.values()]
            hidden = first.model.backbone(together(list(batches.values())), stacked(prompts, sizes))
            for (name, batch), states in zip(batches.items(), hidden.split(sizes), strict=True):
                model, t = self.prompts[name].model, batch["input_ids"].shape[1]
                yield name, parts[name], batch, model.head(states[:, :t], batch, model.backbone)


def _suits(model: PromptTuner, backbone: Backbone) -> bool:
    """Whether the head of a model reads from another `Backbone` of equal weights what it reads from its own."""
    own, head = model.backbone, model.head
    pools = not head.pools or (own.pooling, own.pooler is None) == (backbone.pooling, backbone.pooler is None)
    return pools and own.attention == backbone.attention and (not head.lm or backbone.lm is not None)


def together(batches: list[Batch]) -> Batch:
    """The columns that a backbone reads, of several batches, as one: padded on the right, as the batches are."""
    t = max(batch["input_ids"].shape[1] for batch in batches)
    joined = {}
    for name in ALIGNED:
        if any(name in batch for batch in batches):
            columns = [batch.get(name, torch.zeros_like(batch["input_ids"])) for batch in batches]
            # What stands at padding is not read: its attention mask is 0.
            joined[name] = torch.cat([F.pad(column, (0, t - column.shape[1])) for column in columns])
    if "answer_at" in batches[0]:
        joined["answer_at"] = torch.cat([batch["answer_at"] for batch in batches])
    return joined


def stacked(prompts: list[Prompts], sizes: list[int]) -> Prompts:
    """Prompts of one form for batches of these sizes, as one."""
    first = prompts[0]
    if len(prompts) == 1:
        return first
    embeds, prefix = None, None
    if first.embeds is not None:
        pairs = zip(prompts, sizes, strict=True)
        embeds = torch.cat([one.embeds.expand(b, -1, -1) for one, b in pairs])  # type: ignore[union-attr]
    if first.prefix is not None:
        prefix = tuple(
            torch.cat([layer.expand(-1, b, -1, -1, -1) for layer, b in zip(layers, sizes, strict=True)], dim=1)
            for layers in zip(*(one.prefix for one in prompts), strict=True)  # type: ignore[arg-type]
        )
    return Prompts(embeds=embeds, prefix=prefix, layers=first.layers, shift=first.shift)
