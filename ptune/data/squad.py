"""SQuAD's official json, v1.1 and v2.0: articles of paragraphs of questions (Rajpurkar et al. 2016, 2018)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptune.errors import InputError


def is_document(value: object) -> bool:
    """Whether a JSON value is an object whose rows are the list `data`, as SQuAD's are."""
    return isinstance(value, dict) and isinstance(value.get("data"), list)


def rows(document: dict, file: Path, answered: bool = True) -> Iterator[tuple[int, dict]]:
    """The questions of a document with their numbers, from 1, in the columns of the hub.

    A question that `is_impossible` has no answer; its `plausible_answers` are not read. Rows of `data` that are no
    articles, because they have no `paragraphs`, are rows as they stand.

    Args:
        document: the file's JSON value.
        file: named in errors.
        answered: whether every question must have answers; else those that have none are rows without the column.

    Raises:
        InputError: a part of the document is missing or has another form; the sentence names its path in the document.
    """
    number = 0
    for i, article in enumerate(document["data"]):
        if isinstance(article, dict) and "paragraphs" not in article:
            number += 1
            yield number, article
            continue
        place = f"data[{i}]"
        for j, paragraph in enumerate(_part(article, "paragraphs", list, place, file)):
            inner = f"{place}.paragraphs[{j}]"
            context = _part(paragraph, "context", str, inner, file)
            for k, question in enumerate(_part(paragraph, "qas", list, inner, file)):
                where = f"{inner}.qas[{k}]"
                number += 1
                text = _part(question, "question", str, where, file)
                row = {"id": str(question.get("id", "")), "title": str(article.get("title", "")), "question": text}
                row["context"] = context
                if answered or "answers" in question:
                    row["answers"] = _answers(question, where, file)
                yield number, row


def _answers(question: dict, where: str, file: Path) -> dict[str, list]:
    """The answers of a question, {text, answer_start}, each a list with an item an answer."""
    found: dict[str, list] = {"text": [], "answer_start": []}
    for n, answer in enumerate([] if question.get("is_impossible") else _part(question, "answers", list, where, file)):
        for name, kind in (("text", str), ("answer_start", int)):
            found[name].append(_part(answer, name, kind, f"{where}.answers[{n}]", file))
    return found


def _part(value: object, name: str, kind: type, place: str, file: Path) -> Any:
    """The entry `name` of a part of the document, of the type `kind`."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        said = "is missing" if found is None else f"is {type(found).__name__}"
        what = {list: "a list", str: "a text", int: "a whole number"}[kind]
        raise InputError(f"{file}: {place}.{name} {said}, and must be {what}, as in SQuAD's files.")
    return found
