"""Where the trials of a search are kept: a journal file that processes share, or any database that Optuna knows."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import final

import optuna
from filelock import FileLock
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from ptune.errors import InputError, first_line


@final
@dataclass(frozen=True)
class Store:
    """The study of a search, as any process finds it."""

    place: str
    """A database's URL, or the path of a journal file."""
    name: str
    direction: str
    pruner: str

    def study(self) -> optuna.Study:
        """The study, made where there is none yet.

        Raises:
            InputError: the database or the file cannot be opened.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            storage, pruner = _opened(self.place), _pruner(self.pruner)
            try:
                return optuna.load_study(study_name=self.name, storage=storage, pruner=pruner)
            except KeyError:
                direction = optuna.study.StudyDirection[self.direction.upper()]
                return optuna.create_study(
                    study_name=self.name, storage=storage, pruner=pruner, direction=direction, load_if_exists=True
                )
        except Exception as error:  # of a driver that is not installed, of any database, of a torn file
            shown = self.place.rpartition("@")[2]  # without a password
            raise InputError(f"--storage {shown}: cannot be opened ({first_line(error)}).") from error


def _opened(place: str) -> BaseStorage:
    if "://" in place:
        return RDBStorage(place)
    return JournalStorage(JournalFileBackend(place, _Lock(Path(place))))  # type: ignore[arg-type]  # its base is private


def _pruner(name: str) -> BasePruner:
    """Trials are compared after equal numbers of validations."""
    if name == "median":
        return MedianPruner()
    return SuccessiveHalvingPruner(min_resource=1) if name == "asha" else NopPruner()


@final
class _Lock:
    """Lets one process append to a journal. Optuna's own locks are files, which a killed process leaves for 30 s.

    Args:
        journal: the file.
    """

    def __init__(self, journal: Path) -> None:
        self.journal, self.lock = journal, FileLock(f"{journal}.lock")

    def acquire(self) -> bool:
        """Wait for the lock; cut off a line that a killed process has torn, behind which nothing could be read."""
        self.lock.acquire()
        with self.journal.open("rb") as file:
            torn = file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) and file.read() != b"\n"
        if torn:
            os.truncate(self.journal, self.journal.read_bytes().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Let others append."""
        self.lock.release()
