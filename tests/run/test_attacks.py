"""Inputs and run directories that once ended in a traceback, never ended, were accepted wrongly, or executed code.

`-m deep` runs the attacks on configurations and run directories, with `--fuzz 1` or more all of them;
`python tests/attacks.py` counts what comes of them.
"""

import attacks
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.deep]


GROUPS = {"configurations", "run directories"}


def pytest_generate_tests(metafunc):
    every = metafunc.config.getoption("--fuzz")
    chosen = [attack for attack in attacks.ATTACKS if every or attack.group in GROUPS]
    metafunc.parametrize("attack", chosen, ids=[f"{a.group}: {ascii(a.name)[1:80]}" for a in chosen])


def test_an_attack_is_one_sentence_or_changes_nothing(attack, tmp_path):
    found = attacks.run(attack, tmp_path)
    assert not found.fault, f"{found.fault}: {found.said}"
