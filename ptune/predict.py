"""`python -m ptune.predict RUN --input FILE`: the answers of a trained prompt to the rows of a file.

    python -m ptune.predict runs/x --input new.csv --output answers.jsonl
    echo "a fine film" | python -m ptune.predict runs/x --input - > answers.jsonl
    python -m ptune.predict runs/rte --input test.jsonl --format glue --output submission/

RUN is what `ptune.load` takes. Rows need no answers and are answered in their order; `row` is their number, from 0. A
row that cannot be read is told on stderr with its line, the others are answered, and the exit code is 1.
"""

import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptune.errors import InputError
from ptune.run.command import Arguments, guarded

if TYPE_CHECKING:
    from ptune.serving.predictor import Predictor
    from ptune.tasks import TaskSpec

Answered = list[tuple[int, Any, list[dict[str, Any]]]]
"""Rows with their numbers, from 0, and their answers."""
INPUTS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".conll", ".conllu", ".bio", ".iob", ".iob2", "-")
OUTPUTS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", "-")


def parsed(args: list[str]) -> Namespace:
    """The options; InputError for what is known to be wrong before anything heavy is imported."""
    parser = Arguments("python -m ptune.predict", description="Answer the rows of a file with a trained prompt.")
    parser.add_argument("run", help="run directory, exported folder, prompts.safetensors, best.ckpt or hub id")
    parser.add_argument("--input", required=True, help=f"rows: a file {' '.join(INPUTS[:-1])}, or - for stdin")
    parser.add_argument("--output", default="-", help=f"a file {' '.join(OUTPUTS[:-1])}, or - for stdout")
    parser.add_argument("--format", choices=("rows", "glue"), default="rows", help="glue: the benchmark's own file")
    parser.add_argument("--top_k", type=int, help="number of answers to a row, best first")
    parser.add_argument("--batch_size", type=int, help="rows in a batch; by default the run's")
    parser.add_argument("--device", default="auto", help="such as cpu or cuda:0; by default the accelerator")
    parser.add_argument("--backbone", help="the backbone's place, where it is no longer the run's")
    parser.add_argument("--overwrite", action="store_true", help="replace an output file")
    parser.add_argument("--trust", action="store_true", help="execute classes of others that config.yaml names")
    found = parser.parse_args(args)
    _check(found)
    return found


def _check(found: Namespace) -> None:
    if not Path(found.run).exists() and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", found.run):
        raise InputError(f"{found.run}: there is no such run; give its directory, a prompts.safetensors or a hub id.")
    name = Path(found.input).name.removesuffix(".gz")
    if found.input != "-" and not Path(found.input).is_file():
        raise InputError(f"--input {found.input}: there is no such file.")
    if found.input != "-" and Path(name).suffix not in INPUTS:
        raise InputError(f"--input {found.input}: ends with none of {' '.join(INPUTS[:-1])}; rename or convert it.")
    for option, least in (("top_k", 1), ("batch_size", 1)):
        value = getattr(found, option)
        if value is not None and value < least:
            raise InputError(f"--{option} {value}: must be at least {least}.")
    if not re.fullmatch(r"[a-z]+(:\d+)?", found.device):
        raise InputError(f"--device {found.device}: is no device; give one such as cpu, cuda or cuda:1.")
    output = Path(found.output)
    if found.format == "glue":
        if found.output == "-" or output.is_file():
            raise InputError(f"--output {found.output}: the benchmark's file goes into a folder; give one.")
        if found.top_k:
            raise InputError(f"--top_k {found.top_k}: the benchmark takes one answer a row; leave it out.")
        return
    if found.output == "-":
        return
    if output.suffix not in OUTPUTS:
        raise InputError(f"--output {found.output}: ends with none of {' '.join(OUTPUTS[:-1])}; choose one of them.")
    if not output.parent.is_dir():
        raise InputError(f"--output {found.output}: there is no folder {output.parent}; make it.")
    if output.is_dir() or (output.exists() and not found.overwrite):
        raise InputError(f"--output {found.output}: exists; choose another, or add --overwrite.")


def run(found: Namespace) -> bool:
    """Answer the rows; whether all of them could be read."""
    # These take seconds to import: only when the options are right.
    from ptune.run.disk import told
    from ptune.serving import files, submissions
    from ptune.serving.loading import load

    asked = load(found.run, found.device, found.batch_size, found.backbone, found.trust)
    if found.format == "glue":
        file = Path(found.output, submissions.form_of(asked.data.task.name, found.input)[0])
        if file.exists() and not found.overwrite:
            raise InputError(f"--output {file}: exists; choose another folder, or add --overwrite.")
    refused: list[str] = []
    answered = _answered(asked, found, refused)
    lists = asked.data.several or found.top_k
    with told(found.output, "choose another --output."):
        if found.format == "glue":
            _submit(asked.data.task, found, answered, refused)
        else:
            files.write(
                found.output,
                (
                    [{"row": i} | ({"answers": answers} if lists else answers[0]) for i, _, answers in part]
                    for part in answered
                ),
            )
    return not refused


def _submit(task: "TaskSpec", found: Namespace, answered: Iterator[Answered], refused: list[str]) -> None:
    """Write the benchmark's file, which needs the numbers of all rows."""
    from ptune.serving import submissions
    from ptune.tuning.saving import write_whole

    numbered, answers = [], []
    for _, row, (answer, *_) in chain.from_iterable(answered):
        if isinstance(row, dict):
            numbered.append({name: row[name] for name in submissions.NUMBERS if name in row})
        answers.append(answer)
    if refused or len(numbered) < len(answers):
        rows, without = len(answers) + len(refused), len(refused) or len(answers) - len(numbered)
        raise InputError(f"--format glue: of {rows} rows {without} have no answer or no columns; it needs all.")
    name, text = submissions.submission(task, found.input, numbered, answers)
    Path(found.output).mkdir(parents=True, exist_ok=True)
    write_whole(Path(found.output, name), text.encode())
    print(Path(found.output, name))


def _answered(asked: "Predictor", found: Namespace, refused: list[str]) -> Iterator[Answered]:
    """The rows with their answers, some at a time; of those that cannot be read the places are added to `refused`.

    Why a row cannot be read is told on stderr.
    """
    from tqdm import tqdm

    from ptune.serving import files
    from ptune.serving.predictor import PART

    read = enumerate(files.rows_of(found.input, asked.data.format == "tagging"))
    top_k = found.top_k or asked.data.top_k
    with tqdm(desc="answering", unit=" rows", delay=1, leave=False, file=sys.stderr) as bar:
        while part := list(islice(read, PART)):
            rows, checked = [], []
            for number, (place, row) in part:
                try:
                    if isinstance(row, InputError):
                        raise row
                    checked.append(asked.checked(row))
                    rows.append((number, row))
                except InputError as error:
                    if bar.n:  # it may be on the screen
                        bar.clear()
                    sentence = str(error)
                    print(f"error: {sentence if sentence.startswith(place) else f'{place}: {error}'}", file=sys.stderr)
                    refused.append(place)
            answers = asked.answered(checked, top_k, done=bar.update)
            yield [(number, row, answer) for (number, row), answer in zip(rows, answers, strict=True)]


def main(args: list[str] | None = None) -> int:
    """Run the command line `args`; the exit code: 0, 1 where a row has no answer, or 2 for a mistake in the options."""
    whole: list[bool] = []
    code = guarded(lambda: whole.append(run(parsed(sys.argv[1:] if args is None else args))))
    return code or int(whole == [False])


if __name__ == "__main__":
    sys.exit(main())
