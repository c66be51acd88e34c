"""`python -m ptune.predict RUN --input FILE`: the answers of a trained prompt, or of several, to the rows of a file.

    python -m ptune.predict runs/x --input new.csv --output answers.jsonl
    echo "a fine film" | python -m ptune.predict runs/x --input - > answers.jsonl
    python -m ptune.predict runs/rte --input test.jsonl --format glue --output submission/
    python -m ptune.predict runs/rte films=runs/x --route task --input rows.csv --output answers.jsonl

RUN is what `ptune.load` takes. Rows need no answers and are answered in their order; `row` is their number, from 0. A
row that cannot be read is told on stderr with its line, the others are answered, and the exit code is 1.

Several runs over one backbone share it and its batches (`ptune.PromptBank`), and an answer says which `run` gave it.
With `--route COLUMN` a column names the run of each row: by the run's folder, by NAME of NAME=RUN, or by the run's task
where no other run has the same. Without it every run answers every row.

A row of a column file (CoNLL's) is a sentence. Its words, the first column (of CoNLL-U the second), stand beside the
answers as `tokens`, and the last column, where there are several, as `tags`; or the column whose number is the label of
the run's task. Tags are not read, so that they may be right or have other names. Further columns are left out.
"""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptune.errors import InputError, absent, note
from ptune.run.command import Arguments, guarded
from ptune.serving.routes import Routes, named

if TYPE_CHECKING:
    from ptune.serving.predictor import Predictor
    from ptune.tasks import TaskSpec

Answered = list[tuple[int, str, Any, list[dict[str, Any]]]]
"""Rows with their numbers, from 0, the name of the run that answered, "" where there is one run, and its answers."""
Answer = Callable[..., list[list[dict[str, Any]]]]
"""Answers checked rows; it takes the names of their runs, the rows, and `done`, which is told numbers of them."""
INPUTS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".conll", ".conllu", ".bio", ".iob", ".iob2", "-")
SAVED = "state.json"
"""A file of every folder that `save_to_disk` of a Dataset has written."""
OUTPUTS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", "-")
"""Also the inputs whose rows have columns."""
TABLES = (".csv", ".tsv", ".parquet")
"""Outputs whose rows all have the same columns."""


def parsed(args: list[str]) -> Namespace:
    """The options; InputError for what is known to be wrong before anything heavy is imported."""
    parser = Arguments("python -m ptune.predict", description="Answer the rows of a file with a trained prompt.")
    what = "run directory, exported folder, prompts.safetensors, best.ckpt or hub id; several share one backbone"
    parser.add_argument("runs", metavar="run", nargs="+", help=what)
    what = (
        f"rows: a file {' '.join(INPUTS[:-1])}, a folder that save_to_disk of a Dataset has written, or - for stdin, "
        "with a text or a JSON object on each line; of a column file (CoNLL) the words are read, and they and the last "
        "column stand beside the answers as tokens and tags"
    )
    home = os.path.expanduser  # a shell leaves the ~ of --input=~/x as it is
    parser.add_argument("--input", required=True, type=home, help=what)
    parser.add_argument(
        "--route",
        metavar="COLUMN",
        help="column that says which run answers a row, by the name of its folder, by NAME of a run given as NAME=RUN, "
        "or by its task where no other run has the same; without it every run answers every row",
    )
    where = f"a file {' '.join(OUTPUTS[:-1])}, or - for stdout; with --format glue, a folder"
    parser.add_argument("--output", default="-", type=home, help=where)
    parser.add_argument("--format", choices=("rows", "glue"), default="rows", help="glue: the benchmark's own file")
    top_k = (
        "list so many classes, choices, spans or words of each row, best first; a number, the tags of a sentence and "
        "the labels of a multi-label row are one answer, and stay as they are"
    )
    parser.add_argument("--top_k", type=int, help=top_k)
    parser.add_argument("--batch_size", type=int, help="rows in a batch; by default the run's, or 32")
    parser.add_argument("--device", default="auto", help="such as cpu or cuda:0; by default the accelerator")
    parser.add_argument("--backbone", help="the backbone's place, where it is no longer the run's")
    parser.add_argument("--overwrite", action="store_true", help="replace an output file")
    parser.add_argument("--trust", action="store_true", help="execute classes of others that config.yaml names")
    found = parser.parse_args(args)
    found.runs = named(found.runs)
    _check(found)
    return found


def _check(found: Namespace) -> None:
    for run in found.runs.values():
        if not Path(run).exists() and not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", run):
            raise InputError(absent(run, "give a run directory, a prompts.safetensors or a hub id."))
    name = Path(found.input).name.removesuffix(".gz")
    _check_input(found.input)
    file = found.input != "-" and Path(found.input).is_file()
    if file and Path(name).suffix not in INPUTS:
        raise InputError(f"--input {found.input}: ends with none of {' '.join(INPUTS[:-1])}; rename or convert it.")
    if found.route and file and Path(name).suffix not in OUTPUTS:
        raise InputError(f"--route {found.route}: rows of {found.input} have no columns; give a file that has them.")
    for option, least in (("top_k", 1), ("batch_size", 1)):
        value = getattr(found, option)
        if value is not None and value < least:
            raise InputError(f"--{option} {value}: must be at least {least}.")
    if not re.fullmatch(r"[a-z]+(:\d+)?", found.device):
        raise InputError(f"--device {found.device}: is no device; give one such as cpu, cuda or cuda:1.")
    output = Path(found.output)
    if found.format == "glue":
        if len(found.runs) > 1 or found.route:
            raise InputError("--format glue: the benchmark's file has answers of one run; name one, without --route.")
        if found.output == "-" or output.is_file() or (output.suffix and not output.is_dir()):
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
    if output.exists() and output.resolve() == Path(found.input).resolve():
        raise InputError(f"--output {found.output}: is the --input, whose rows would be lost; choose another.")
    if output.is_dir() or (output.exists() and not found.overwrite):
        raise InputError(f"--output {found.output}: exists; choose another, or add --overwrite.")


def _check_input(source: str) -> None:
    """Raise an InputError where this is neither stdin, nor a file, nor a saved Dataset."""
    folder = Path(source)
    if source == "-" or folder.is_file() or (folder / SAVED).is_file():
        return
    fix = "give a file, a folder that save_to_disk of a Dataset has written, or - for stdin."
    if not folder.exists():
        raise InputError(f"--input {absent(source, fix)}")
    splits = sorted(str(file.parent) for file in folder.glob(f"*/{SAVED}"))
    if splits:
        raise InputError(f"--input {source}: holds saved datasets; give one: {', '.join(splits)}.")
    raise InputError(f"--input {source}: is a folder; {fix}")


def run(found: Namespace) -> bool:
    """Answer the rows; whether all of them could be read."""
    # These take seconds to import: only when the options are right.
    from ptune.run.disk import told
    from ptune.serving import files, submissions

    prompts, answer = _loaded(found)
    data = [predictor.data for predictor in prompts.values()]
    if found.format == "glue":
        file = Path(found.output, submissions.form_of(data[0].task.name, found.input)[0])
        if file.exists() and not found.overwrite:
            raise InputError(f"--output {file}: exists; choose another folder, or add --overwrite.")
    formats = dict.fromkeys(own.format for own in data)
    if len(formats) > 1 and Path(found.output).suffix in TABLES:
        kinds = " and ".join(formats)
        raise InputError(f"--output {found.output}: answers of {kinds} have other columns; give a .jsonl or .json.")
    refused: list[str] = []
    answered = _answered(prompts, answer, found, refused)

    def written(number: int, name: str, row: Any, answers: list[dict[str, Any]]) -> dict[str, Any]:
        lists = prompts[name].data.several or found.top_k
        about = ({"run": name} if name else {}) | files.sentence(found.input, row, prompts[name].data.task.label)
        return {"row": number} | about | ({"answers": answers} if lists else answers[0])

    with told(found.output, "choose another --output."):
        if found.format == "glue":
            _submit(data[0].task, found, answered, refused)
        else:
            files.write(found.output, ([written(*each) for each in part] for part in answered))
    return not refused


def _loaded(found: Namespace) -> tuple[Mapping[str, "Predictor"], Answer]:
    """The runs by name, "" for one that is asked by itself, and what answers their rows."""
    if len(found.runs) > 1 or found.route:
        from ptune.serving.bank import PromptBank

        if not found.route:
            note("every run answers every row; --route COLUMN names a column that says which one answers a row.")
        bank = PromptBank(found.runs, found.device, found.batch_size or 32, found.backbone, found.trust)
        return bank.prompts, partial(bank.answered, top_k=found.top_k)
    from ptune.serving.loading import load

    (run,) = found.runs.values()
    asked = load(run, found.device, found.batch_size, found.backbone, found.trust)
    top_k = found.top_k or asked.data.top_k
    return {"": asked}, lambda names, checked, done: asked.answered(checked, top_k, done=done)


def _submit(task: "TaskSpec", found: Namespace, answered: Iterator[Answered], refused: list[str]) -> None:
    """Write the benchmark's file, which needs the numbers of all rows."""
    from ptune.serving import submissions
    from ptune.tuning.saving import write_whole

    numbered, answers = [], []
    for _, _, row, (answer, *_) in chain.from_iterable(answered):
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


def _answered(
    prompts: Mapping[str, "Predictor"],
    answer: Answer,
    found: Namespace,
    refused: list[str],
) -> Iterator[Answered]:
    """The rows with their answers, some at a time; of those that cannot be read the places are added to `refused`.

    Why a row cannot be read is told on stderr.
    """
    from tqdm import tqdm

    from ptune.serving import files
    from ptune.serving.predictor import PART

    read = enumerate(files.rows_of(found.input, all(own.data.format == "tagging" for own in prompts.values())))
    routes = Routes({name: own.data.task.name for name, own in prompts.items()}, found.route)
    with tqdm(desc="answering", unit=" rows", delay=1, leave=False, file=sys.stderr) as bar:

        @contextmanager
        def refusing(place: str) -> Iterator[None]:
            """Tell why what lies at this place cannot be read, and go on."""
            try:
                yield
            except InputError as error:
                if bar.n:  # it may be on the screen
                    bar.clear()
                sentence = str(error)
                print(f"error: {sentence if sentence.startswith(place) else f'{place}: {error}'}", file=sys.stderr)
                refused.append(place)

        while part := list(islice(read, PART)):
            if part[0][0] == 0:
                routes.check([row for _, (_, row) in part])
            asked, checked = [], []
            for number, (place, row) in part:
                with refusing(place):
                    if isinstance(row, InputError):
                        raise row
                    for name in routes.of(row):
                        with refusing(f"{place}: {name}" if name else place):
                            checked.append(prompts[name].checked(files.asked(found.input, row, prompts[name].data)))
                            asked.append((number, name, row))
            answers = answer([name for _, name, _ in asked], checked, done=bar.update)
            yield [(*each, own) for each, own in zip(asked, answers, strict=True)]


def main(args: list[str] | None = None) -> int:
    """Run the command line `args`; the exit code: 0, 1 where a row has no answer, or 2 for a mistake in the options."""
    whole: list[bool] = []
    code = guarded(lambda: whole.append(run(parsed(sys.argv[1:] if args is None else args))))
    return code or int(whole == [False])


if __name__ == "__main__":
    sys.exit(main())
