"""Commands that workers run in place of `ptune fit`: they take its words and leave what its runs leave."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from ptune.run.command import stoppable


def ends(words: list[str]) -> None:
    """Leave a result with what the process is.

    A cell with seed 13 fails, one with 9 is killed, one with 15 is stopped, one with 7 waits for the file `go`, and one
    with 2 gets a SIGINT as a run does of a terminal.
    """
    options = dict(zip(words[::2], words[1::2], strict=True))
    seed = int(options["--seed_everything"])
    if seed == 13:
        print("error: 13 is no seed for a grid.", file=sys.stderr)
        raise SystemExit(2)
    if seed == 15:
        print("stopped by SIGTERM at step 3; go on with --ckpt_path auto.", file=sys.stderr)
        raise SystemExit(143)
    if seed == 2:
        with stoppable():
            os.kill(os.getpid(), signal.SIGINT)
    if seed == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 7:
        Path(options["--run_dir"], "pid").write_text(str(os.getpid()))
        while not Path(options["--run_dir"], "go").exists():
            time.sleep(0.1)
    result = {"seed": seed, "pid": os.getpid(), "argv": sys.argv, "main": sys.modules["__main__"].__spec__.name}
    Path(options["--run_dir"], "result.json").write_text(json.dumps(result))
