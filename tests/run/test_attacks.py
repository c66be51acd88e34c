"""Inputs and run directories that once ended in a traceback, never ended, were accepted wrongly, or executed code.

`-m deep` runs the attacks on configurations and run directories, with `--fuzz 1` or more all of them;
`python tests/attacks.py` counts what comes of them.
"""

import contextlib
import time

import attacks
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.deep]


GROUPS = {"configurations", "run directories"}


def pytest_generate_tests(metafunc):
    every = metafunc.config.getoption("--fuzz")
    chosen = [attack for attack in attacks.ATTACKS if every or attack.group in GROUPS]
    if "attack" in metafunc.fixturenames:
        metafunc.parametrize("attack", chosen, ids=[f"{a.group}: {ascii(a.name)[1:80]}" for a in chosen])


def test_an_attack_is_one_sentence_or_changes_nothing(attack, tmp_path):
    found = attacks.run(attack, tmp_path)
    assert not found.fault, f"{found.fault}: {found.said}"


def test_what_hangs_is_ended_though_it_catches_everything():
    def stubborn(words, main):
        with contextlib.suppress(BaseException):
            time.sleep(60)
        time.sleep(60)

    assert attacks.outcome([], limit=0.1, run=stubborn).fault == "hung"
