"""Slurm: a job that comes to its time limit is put into the queue again, and its command goes on by itself."""

import os
import subprocess

from ptune.errors import first_line


def requeued() -> bool:
    """Whether Slurm has started this job before, so that the same command goes on with the run of its directory."""
    count = os.environ.get("SLURM_RESTART_COUNT", "")
    return count.isdecimal() and int(count) > 0


def requeue() -> str:
    """Put this job into the queue again; "" where that has worked, else why not, in words."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ.get("SLURM_JOB_ID", "")
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
    except subprocess.CalledProcessError as error:
        return f"`scontrol requeue {job}` failed: {' '.join(error.stderr.split()) or f'exit code {error.returncode}'}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`scontrol requeue {job}` failed: {first_line(error)}"
    return ""
