"""What others write reaches a terminal as text only: escaped, on one line, and cut."""

import pytest
import runs

from ptune.errors import TEXT, InputError, note, printable

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\0\u202eevil\u2066\u2028\x9b31m"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\r\n\x00\u202eevil\u2066\u2028\x9b31m"


def is_plain(text: str) -> bool:
    """Whether a terminal shows each line of a text as it is."""
    return all(line.isprintable() for line in text.split("\n"))


def test_control_characters_line_breaks_and_marks_of_direction_are_escaped():
    assert printable(HOSTILE) == SHOWN
    assert printable("ordinary, ünïcode 文字 and 'quotes'") == "ordinary, ünïcode 文字 and 'quotes'"
    assert printable("\ud800") == r"\ud800"
    assert printable(printable(HOSTILE)) == SHOWN
    assert str(InputError(f"column {HOSTILE}")) == f"column {SHOWN}"


@pytest.mark.parametrize("letter", ["a", "a ", "\0", "\x1b ", "\n"])
def test_a_message_of_any_length_keeps_its_beginning_and_its_end(letter):
    found = printable(f"key: {letter * 3_000_000}; choose another.")
    assert len(found) <= TEXT
    assert found.startswith("key: ")
    assert found.endswith("choose another.")
    assert " letters ... " in found


def test_a_word_is_cut_where_the_sentence_is_short():
    found = printable(f"key: {'a' * 1500} is no number.")
    assert len(found) < 500
    assert found.endswith(" is no number.")


def test_a_note_is_one_line(capsys):
    note(HOSTILE)
    assert capsys.readouterr().err == f"note: {SHOWN}\n"


def folder(tmp_path, train: str, name: str = "train.csv") -> str:
    path = tmp_path / "data"
    path.mkdir()
    (path / name).write_text(train, newline="")
    (path / "validation.csv").write_text("a,y\nb,no\n")
    return str(path)


@pytest.mark.parametrize(
    "words",
    [
        ["--model.backbone", f"./{HOSTILE[:9]}"],
        ["--model.length", HOSTILE],
        ["--model.schedule", HOSTILE],
        [f"--model.{HOSTILE}", "1"],
        ["--data.task.name", HOSTILE],
        ["--data.task.labels", f"[no,{HOSTILE[:8]}"],
        ["--data.path", HOSTILE.replace("\0", "")],
        ["--ckpt_path", HOSTILE.replace("\0", "")],
        ["--config", HOSTILE.replace("\0", "").replace("\n", "")],
        ["--trainer.precision", HOSTILE],
        ["--trainer.callbacks", HOSTILE],
        ["--data.template", HOSTILE],
        ["--data.path", "a" * 100_000],
        ["--model.backbone", "a/" * 100_000],
        ["--run_dir", "a" * 100_000],
        ["--config", "a" * 100_000],
        [HOSTILE],
    ],
    ids=repr,
)
def test_an_option_of_any_kind_is_told_in_one_plain_line(words, tmp_path):
    path = folder(tmp_path, "a,y\nb,no\nc,yes\n")
    base = ["--model", "PTuningV2", "--model.backbone", runs.bert(), "--data", "Classification", "--data.path", path]
    base += ["--data.task.text", "[a]", "--data.task.label", "y", "--data.task.labels", "[no,yes]"]
    code, out, err = runs.call([*base, "--run_dir", tmp_path / "run", *map(str, runs.QUIET), *words])
    lines = [line for line in err.split("\n")[:-1] if not line.startswith("Seed set to")]
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert is_plain(out + lines[0])
    assert len(lines[0]) < TEXT + 10


@pytest.mark.parametrize(
    "train",
    [f'a,"{HOSTILE}"\nb,no\n', f'a,y\nb,"{HOSTILE}"\n', f"a,y,{HOSTILE}".replace("\n", "\v") + "\nb\n"],
    ids=["header", "label", "fields"],
)
def test_what_a_data_file_holds_is_told_in_one_plain_line(train, tmp_path):
    path = folder(tmp_path, train)
    words = ["--model", "PTuningV2", "--model.backbone", runs.bert(), "--data", "Classification", "--data.path", path]
    words += ["--data.task.text", "[a]", "--data.task.label", "y", "--data.task.labels", "[no,yes]"]
    code, out, err = runs.call([*words, "--run_dir", tmp_path / "run"])
    assert code == 2, err
    assert err.count("\n") - err.count("Seed set to") == 1
    assert is_plain(out + err)
    assert r"\x1b]0;owned\x07" in err
