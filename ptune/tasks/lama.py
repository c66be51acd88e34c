"""LAMA's T-REx (Petroni et al. 2019): 41 relations, one task each, `lama/P19`; the object is one word at the mask.

The templates are LAMA's own (facebookresearch/LAMA, relations.jsonl). Splits of local files: `train` and `validation`
as AutoPrompt drew them (Shin et al. 2020), `test` LAMA's facts, `train_lpaqa` LPAQA's (Jiang et al. 2020), used for
three relations that the first files lack; P47 has no validation rows either, so it is chosen on its training rows.
"""

from ptune.tasks.spec import TaskSpec

TEMPLATES = {
    "P17": "{sub_label} is located in [MASK].",
    "P19": "{sub_label} was born in [MASK].",
    "P20": "{sub_label} died in [MASK].",
    "P27": "{sub_label} is [MASK] citizen.",
    "P30": "{sub_label} is located in [MASK].",
    "P31": "{sub_label} is a [MASK].",
    "P36": "The capital of {sub_label} is [MASK].",
    "P37": "The official language of {sub_label} is [MASK].",
    "P39": "{sub_label} has the position of [MASK].",
    "P47": "{sub_label} shares border with [MASK].",
    "P101": "{sub_label} works in the field of [MASK].",
    "P103": "The native language of {sub_label} is [MASK].",
    "P106": "{sub_label} is a [MASK] by profession.",
    "P108": "{sub_label} works for [MASK].",
    "P127": "{sub_label} is owned by [MASK].",
    "P131": "{sub_label} is located in [MASK].",
    "P136": "{sub_label} plays [MASK] music.",
    "P138": "{sub_label} is named after [MASK].",
    "P140": "{sub_label} is affiliated with the [MASK] religion.",
    "P159": "The headquarter of {sub_label} is in [MASK].",
    "P176": "{sub_label} is produced by [MASK].",
    "P178": "{sub_label} is developed by [MASK].",
    "P190": "{sub_label} and [MASK] are twin cities.",
    "P264": "{sub_label} is represented by music label [MASK].",
    "P276": "{sub_label} is located in [MASK].",
    "P279": "{sub_label} is a subclass of [MASK].",
    "P361": "{sub_label} is part of [MASK].",
    "P364": "The original language of {sub_label} is [MASK].",
    "P407": "{sub_label} was written in [MASK].",
    "P413": "{sub_label} plays in [MASK] position.",
    "P449": "{sub_label} was originally aired on [MASK].",
    "P463": "{sub_label} is a member of [MASK].",
    "P495": "{sub_label} was created in [MASK].",
    "P527": "{sub_label} consists of [MASK].",
    "P530": "{sub_label} maintains diplomatic relations with [MASK].",
    "P740": "{sub_label} was founded in [MASK].",
    "P937": "{sub_label} used to work in [MASK].",
    "P1001": "{sub_label} is a legal term in [MASK].",
    "P1303": "{sub_label} plays [MASK].",
    "P1376": "{sub_label} is the capital of [MASK].",
    "P1412": "{sub_label} used to communicate in [MASK].",
}
SPLITS = {
    "P190": ("train_lpaqa", "validation", "test"),
    "P530": ("train_lpaqa", "validation", "test"),
    "P47": ("train_lpaqa", "train_lpaqa", "test"),
}


def _relation(name: str, template: str) -> TaskSpec:
    train, *evaluate = SPLITS.get(name, ("train", "validation", "test"))
    return TaskSpec(
        f"lama/{name}",
        "fill",
        text=("sub_label",),
        label="obj_label",
        train=train,
        evaluate=tuple(evaluate),
        metrics=("precision_at_1",),
        where=("predicate_id", name),
        template=template,
        max_length=64,
        verified=True,
    )


TASKS = tuple(_relation(*row) for row in TEMPLATES.items())
