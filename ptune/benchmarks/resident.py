"""The resident memory of this process, without any import that would add to it."""

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def largest() -> int:
    """The largest resident memory of this process since it began, or since it was reset, in bytes.

    Linux's own number is read where there is one: `ru_maxrss` of a process that was started by another one begins
    with the memory of that one.
    """
    if STATUS.exists():
        lines = STATUS.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
