"""Generated tasks, one for each format: English sentences about who did what to whom.

Labels depend on word order and voice, never on which words occur: each set of words comes with every answer. So the
mean of a frozen encoder's outputs says little, and a tuned encoder can learn all of it. A clause is a doer, a verb and
another person; train, validation and test share no verb with the same two people, in either order.
The rows are seeded and the same everywhere. They are for trials and tests of the framework, not a benchmark.
"""

import random
from collections.abc import Callable, Iterator
from itertools import combinations, product

from ptune.tasks.spec import TaskSpec


def _words(text: str) -> list[str]:
    return text.split()


PEOPLE = _words(
    "nurse pilot baker judge farmer teacher singer painter doctor lawyer driver sailor dancer writer tailor hunter"
    " butcher plumber banker student soldier barber miner waiter"
)
VERBS = _words(
    "thanked phoned followed praised helped warned visited greeted blamed invited hired trusted watched called"
    " annoyed surprised"
)
ADJECTIVES = _words("old young tall kind tired happy quiet clever")
SIZES = {"train": 3000, "validation": 500, "test": 500}

Clause = tuple[str, str, str]
"""Doer, verb, other."""
Maker = Callable[[list[Clause], random.Random], Iterator[dict]]
"""From the clauses of a split, in one direction each, to its rows."""


def active(clause: Clause) -> str:
    """The nurse thanked the pilot."""
    doer, verb, other = clause
    return f"the {doer} {verb} the {other}"


def passive(clause: Clause) -> str:
    """The pilot was thanked by the nurse."""
    doer, verb, other = clause
    return f"the {other} was {verb} by the {doer}"


def either(clause: Clause, rng: random.Random) -> str:
    """Active or passive, by chance."""
    return rng.choice((active, passive))(clause)


def swapped(clause: Clause) -> Clause:
    """The same words with the roles exchanged."""
    return clause[2], clause[1], clause[0]


def sentence(*clauses: str) -> str:
    """Clauses joined by "and", with a capital and a full stop."""
    text = " and ".join(clauses)
    return f"{text[0].upper()}{text[1:]}."


def meetings(clauses: list[Clause], rng: random.Random, same_verb: bool) -> Iterator[tuple[str, Clause, Clause]]:
    """Endless pairs of clauses that share a person: the person, and both as (the person, verb, another person)."""
    at: dict[tuple, list[Clause]] = {}
    for clause in clauses:
        for first in (clause, swapped(clause)):
            at.setdefault((first[0], first[1] if same_verb else ""), []).append(first)
    places = [group for group in at.values() if len(group) > 1]
    while True:
        one, two = rng.sample(rng.choice(places), 2)
        if one[2] != two[2]:
            yield one[0], one, two


def single(clauses: list[Clause], rng: random.Random) -> Iterator[dict]:
    """Does the person who occurs twice act in the second clause?"""
    for _, one, two in meetings(clauses, rng, same_verb=False):
        first = either(rng.choice((one, swapped(one))), rng)
        for label, second in ((1, two), (0, swapped(two))):
            yield {"sentence": sentence(first, either(second, rng)), "label": label}


def pair(clauses: list[Clause], rng: random.Random) -> Iterator[dict]:
    """Do both sentences say the same? One is active, the other passive, with the same words."""
    for clause in clauses:
        for label in (1, 0):
            first = rng.choice((clause, swapped(clause)))
            second = first if label else swapped(first)
            forms = rng.sample((active, passive), 2)
            yield {"sentence1": sentence(forms[0](first)), "sentence2": sentence(forms[1](second)), "label": label}


def choice(clauses: list[Clause], rng: random.Random) -> Iterator[dict]:
    """Which of two sentences follows from the context, which has its clause in the other voice and a second clause?"""
    while True:
        stated, other = (rng.choice((clause, swapped(clause))) for clause in rng.sample(clauses, 2))
        if not {stated[0], stated[2]} & {other[0], other[2]}:
            for label in (0, 1):
                say, state = rng.sample((active, passive), 2)
                context = [state(stated), either(other, rng)]
                rng.shuffle(context)
                endings = [sentence(say(stated)), sentence(say(swapped(stated)))]
                ending0, ending1 = endings if label == 0 else endings[::-1]
                yield {"context": sentence(*context), "ending0": ending0, "ending1": ending1, "label": label}


def qa(clauses: list[Clause], rng: random.Random) -> Iterator[dict]:
    """Who did it to somebody, or to whom did she do it? That person does it once and once has it done to her."""
    for who, one, two in meetings(clauses, rng, same_verb=True):
        done, suffered = one, swapped(two)
        parts = [done, suffered]
        rng.shuffle(parts)
        context = sentence(*(either(part, rng) for part in parts))
        ask_doer = rng.random() < 0.5
        answer = suffered[0] if ask_doer else done[2]
        question = f"Who {one[1]} the {who}?" if ask_doer else f"Who was {one[1]} by the {who}?"
        answers = {"text": [answer], "answer_start": [context.index(f" {answer}") + 1]}
        yield {"context": context, "question": question, "answers": answers}


def tagging(clauses: list[Clause], rng: random.Random) -> Iterator[dict]:
    """Who acts and who is acted on, article and adjective included."""
    while True:
        tokens, tags = [], []
        for clause in (rng.choice((c, swapped(c))) for c in rng.sample(clauses, 2)):
            doer, verb, other = clause
            parts = [("AGENT", doer), ("O", verb), ("PATIENT", other)]
            if rng.random() < 0.5:
                parts = [("PATIENT", other), ("O", f"was {verb} by"), ("AGENT", doer)]
            tokens, tags = ([*tokens, "and"], [*tags, "O"]) if tokens else ([], [])
            for role, words in parts:
                if role == "O":
                    tokens += words.split()
                    tags += ["O"] * len(words.split())
                else:
                    phrase = ["the", *rng.sample(ADJECTIVES, rng.randrange(2)), words]
                    tokens += phrase
                    tags += [f"B-{role}"] + [f"I-{role}"] * (len(phrase) - 1)
        yield {"tokens": [tokens[0].capitalize(), *tokens[1:], "."], "tags": [*tags, "O"]}


MAKERS: dict[str, Maker] = {
    "toy/single": single,
    "toy/pair": pair,
    "toy/choice": choice,
    "toy/qa": qa,
    "toy/tagging": tagging,
}


def generate(name: str, split: str) -> list[dict]:
    """The rows of one split of a toy task, shuffled, always the same ones, none of them twice."""
    clauses = [(a, verb, b) for (a, b), verb in product(combinations(PEOPLE, 2), VERBS)]
    random.Random("clauses").shuffle(clauses)
    eighth = len(clauses) // 8
    start, end = {"train": (2 * eighth, None), "validation": (eighth, 2 * eighth), "test": (0, eighth)}[split]
    rng = random.Random(f"{name} {split}")
    rows: dict[str, dict] = {}
    for row in MAKERS[name](clauses[start:end], rng):
        rows.setdefault(str({key: value for key, value in row.items() if key != "label"}), row)
        if len(rows) == SIZES[split]:
            break
    shuffled = list(rows.values())
    rng.shuffle(shuffled)
    return [{"id": f"{split}-{i}"} | row for i, row in enumerate(shuffled)]


def _classes(name: str, *text: str) -> TaskSpec:
    """A task of yes and no."""
    return TaskSpec(
        name, "classification", text, labels=("no", "yes"), metrics=("accuracy",), max_length=32, verified=True
    )


TASKS = (
    _classes("toy/single", "sentence"),
    _classes("toy/pair", "sentence1", "sentence2"),
    TaskSpec(
        "toy/choice",
        "multiple_choice",
        text=("context",),
        choices=("ending0", "ending1"),
        labels=("ending0", "ending1"),
        metrics=("accuracy",),
        max_length=48,
        verified=True,
    ),
    TaskSpec(
        "toy/qa",
        "span_qa",
        text=("question", "context"),
        label="answers",
        metrics=("f1", "exact_match"),
        max_length=48,
        verified=True,
    ),
    TaskSpec(
        "toy/tagging",
        "tagging",
        text=("tokens",),
        label="tags",
        labels=("O", "B-AGENT", "I-AGENT", "B-PATIENT", "I-PATIENT"),
        metrics=("entity_f1", "entity_precision", "entity_recall"),
        max_length=48,
        verified=True,
    ),
)
