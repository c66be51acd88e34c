"""Inputs and run directories that once ended in a traceback, never ended, were accepted wrongly, or executed code.

By default the attacks on configurations and run directories are run, with `--fuzz 1` or more all of them;
`python tests/attacks.py` counts what comes of them.
"""

import attacks


def pytest_generate_tests(metafunc):
    groups = {"configurations", "run directories"}
    chosen = [a for a in attacks.ATTACKS if metafunc.config.getoption("--fuzz") or a.group in groups]
    metafunc.parametrize("attack", chosen, ids=[f"{a.group}: {ascii(a.name)[1:80]}" for a in chosen])


def test_an_attack_is_one_sentence_or_changes_nothing(attack, tmp_path):
    found = attacks.run(attack, tmp_path)
    assert not found.fault, f"{found.fault}: {found.said}"
