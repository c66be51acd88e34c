"""`python -m ptune.bench PART`: speed and memory, measured side by side in one process, beside PEFT and transformers.

    python -m ptune.bench step --json step.json
    python -m ptune.bench show step.json
    python -m ptune.bench scale --json scale.json --svg scale.svg

Rows take turns in rounds; printed are medians with quartiles, as Markdown tables. `--json` keeps the numbers of every
round, and `show` prints the tables of such a file again. Run it alone on the machine.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers

from ptune.backbone.pretrained import MINILM, describe
from ptune.benchmarks import data, epoch, predict, scale, step
from ptune.benchmarks.options import at_least
from ptune.benchmarks.shapes import random_bert
from ptune.errors import InputError, first_line, nearest
from ptune.research.formats import markdown
from ptune.research.tables import Report
from ptune.run import machine
from ptune.run.cli import without_noise
from ptune.run.command import Arguments, guarded, place
from ptune.run.disk import told
from ptune.tuning.saving import write_whole

PURPOSE = "Measure speed and memory, side by side in one process, beside PEFT and transformers."
PARTS: Mapping[str, ModuleType] = {"step": step, "epoch": epoch, "data": data, "predict": predict, "scale": scale}
"""What is measured, by the word of the command line; each has `add_options`, `measure` and `tables`."""
RANDOM = "random MiniLM-L6"
"""What the output calls the backbone where none is given."""


def run(args: list[str]) -> None:
    """Measure and print, or print what was measured before."""
    options = _arguments().parse_args(args or ["step"])
    for name in ("json", "svg"):
        file = getattr(options, name, None)
        if file and not file.absolute().parent.is_dir():
            raise InputError(f"--{name} {file}: there is no folder {file.parent}; make it first.")
    found = read(options.file) if options.part == "show" else measured(options, args)
    drawn = scale.picture(found["found"]) if options.svg and found["part"] == "scale" else ""
    if options.svg and not drawn:
        raise InputError(f"--svg {options.svg}: only what `scale` measures is drawn, and this is {found['part']!r}.")
    print(shown(found, options.tables), end="")
    texts = {options.json: json.dumps(found, indent=1) + "\n", options.svg: drawn}
    for file, text in texts.items():
        if file:
            with told(file.parent, "choose another file."):
                write_whole(file, text.encode())


def measured(options: argparse.Namespace, args: list[str]) -> dict[str, Any]:
    """What `--json` keeps: the part, what it was measured with, and what its `measure` has found."""
    options.device = device(options.device)
    without_noise()
    transformers.utils.logging.disable_progress_bar()
    about = machine.about("bench", args)
    del about["host"]
    about |= {"device": machine.device(torch.device(options.device)), "threads": torch.get_num_threads()}
    about |= {"backbone": options.backbone or RANDOM, "precision": options.precision, "rounds": options.rounds}
    if not options.backbone and getattr(options, "data", None):
        raise InputError(
            f"--backbone is missing: the tokenizer of the {RANDOM} spells the words of --data in letters; give one, "
            f"such as {MINILM}."
        )
    with tempfile.TemporaryDirectory() as folder:
        options.backbone = options.backbone or random_bert(Path(folder, "random"))
        describe(options.backbone)
        return {"part": options.part, "about": about, "found": PARTS[options.part].measure(options)}


def device(name: str) -> str:
    """The device that `--device` means; InputError for a GPU that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU here; use --device cpu.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def read(file: Path) -> dict[str, Any]:
    """What `--json` has written; InputError for any other file."""
    try:
        found = json.loads(file.read_bytes())
        if found["part"] in PARTS and {"about", "found"} <= found.keys():
            return found
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); give a file that --json has written.") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{file}: is no file of ptune.bench ({first_line(error)}).") from error
    raise InputError(f"{file}: is no file of ptune.bench; give one that --json has written.")


def shown(found: dict[str, Any], names: Sequence[str] = ()) -> str:
    """Markdown of a measurement: all tables, or those of these names."""
    about = found["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    counts = ", ".join(f"{about[name]} {name[: len(name) - (about[name] == 1)]}" for name in ("threads", "rounds"))
    notes = (f"{about['device']}, {about['precision']}, {about['backbone']}, {counts}; {versions}.",)
    tables = {table.name: table for table in PARTS[found["part"]].tables(found["found"])}
    for name in names:
        if name not in tables:
            raise InputError(f"--tables {name}: there is no such table; {nearest(name, tables)}")
    return markdown(Report("What it costs", tuple(tables[name] for name in names or tables), notes, ()))


def _arguments() -> Arguments:
    arguments = Arguments("python -m ptune.bench", description=PURPOSE)
    parts = arguments.add_subparsers(dest="part", metavar="PART", required=True)
    for name, part in PARTS.items():
        said = (part.__doc__ or "").partition("`: ")[2].partition("\n")[0]
        what = said[:1].upper() + said[1:]  # str.capitalize would write PEFT in small letters
        parser = parts.add_parser(name, description=what, help=what)
        _add_common(parser)
        part.add_options(parser)
    again = parts.add_parser("show", description="Print the tables of a file of --json.", help="print tables again")
    again.add_argument("file", type=place, help="what --json has written")
    what = "names of the tables, such as step64 or bank; default: all"
    again.add_argument("--tables", nargs="+", default=[], metavar="NAME", help=what)
    again.set_defaults(json=None)
    for parser in (again, parts.choices["scale"]):
        parser.add_argument("--svg", type=place, metavar="FILE", help="a picture of what scale has measured")
    return arguments


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=place, metavar="FILE", help="keep the numbers of every round")
    what = "folder, hub id or package:NAME/PATH; by default random weights in the shape of MiniLM-L6"
    parser.add_argument("--backbone", metavar="NAME", help=what)
    what = "auto takes the GPU if there is one"
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=what)
    what = "of all rows, as Lightning names it"
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true", help=what)
    parser.set_defaults(svg=None, tables=[])
    parser.add_argument("--rounds", type=at_least(1), default=9, help="rounds that are counted (default: %(default)s)")


def main(args: list[str] | None = None) -> int:
    """Run the command line `args`; the exit code: 0, or 2 for a mistake in the input, told in one sentence."""
    return guarded(lambda: run(sys.argv[1:] if args is None else args))


if __name__ == "__main__":
    sys.exit(main())
