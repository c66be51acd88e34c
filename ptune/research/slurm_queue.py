"""What submitit asks Slurm for: the queue in place of the accounting, which many clusters do not have."""

from typing import final

from submitit.slurm.slurm import SlurmInfoWatcher


@final
class Queue(SlurmInfoWatcher):
    """Takes a job for ended when `squeue` does not list it; one that is put into the queue again is listed throughout.

    Where Slurm does not answer, submitit says so in a warning, and nothing has ended.
    """

    def _make_command(self) -> list[str]:
        return ["squeue", "--me", "--noheader", "--format=%i"]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """The state of each job that is waited for, of the numbers that `squeue` has printed."""
        listed = {*(string if isinstance(string, str) else string.decode()).split()}
        return {job: {"State": "RUNNING" if job in listed else "COMPLETED"} for job in self._registered}
