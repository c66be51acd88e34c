"""What a dry run refuses: all that a cell's run would refuse before it reads a row or loads a weight."""

from collections.abc import Iterable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from ptune.errors import InputError, note
from ptune.research.cells import Cell
from ptune.run.arguments import prepare
from ptune.run.command import root

SEED = "--seed_everything"


def check(file: Path, cells: Iterable[Cell], here: bool) -> None:
    """Build what each cell's run is made of: model without weights, data without rows, and trainer.

    Cells that differ in nothing but the seed, which is checked by then, are built once. Where the hub does not give the
    config of a backbone, that is noted and no mistake, since the hub may be reached where the cells run.

    Args:
        file: the grid, named in what is wrong.
        cells: those of the grid.
        here: whether they run on this machine, whose processors and packages the trainer's options must fit.

    Raises:
        InputError: the first mistake, with the name of its cell.
    """
    from ptune.backbone.pretrained import NotGiven  # these take seconds to import
    from ptune.data.local import existing
    from ptune.run.cli import CLI

    told: set[str] = set()
    alike: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        alike.setdefault(_unseeded(cell), cell)
    for cell in alike.values():
        try:
            with redirect_stderr(StringIO()):  # what is left out of a configuration was said when the cell was made
                cli = CLI.of(prepare([*cell.words, "--run_dir", str(cell.run_dir)]))
                existing(cli.datamodule.path, cli.datamodule.task.evaluate[0])
                if here:
                    cli.build_trainer(str(cell.run_dir), [], [])
        except (ValueError, ImportError) as error:
            mistake = root(error)
            if mistake is None:
                raise
            if not isinstance(mistake, NotGiven):
                raise InputError(f"{file}, cell {cell.name}: {mistake}") from error
            if str(mistake) not in told:
                note(f"not all of {cell.name} could be checked: {mistake}")
            told.add(str(mistake))


def _unseeded(cell: Cell) -> tuple[str, ...]:
    """The words of a cell without its seed."""
    pairs = zip(cell.words[::2], cell.words[1::2], strict=True)
    return tuple(word for pair in pairs if pair[0] != SEED for word in pair)
