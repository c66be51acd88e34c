"""The layout: what lies at the top of ptune/ can be run, everything else has a room, and rooms only look down.

`python tests/test_layout.py [FOLDER]` measures the rooms of any package.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ptune"
FLOORS = (
    {"errors", "prompts"},
    {"tasks", "backbone"},
    {"heads"},
    {"data", "tuning"},
    {"methods"},
    {"run"},
    {"serving", "research"},
    {"benchmarks"},
    {"commands"},
    {"grid", "sweep"},
)
"""Each floor imports from lower ones. A command is a module at the top, or a package's `__main__`; those of the last
floor run other commands."""


def imports(package: Path) -> Iterator[tuple[str, str]]:
    """Which module of the package imports which, wherever the import stands."""
    name = package.name
    modules = {
        ".".join((name, *file.relative_to(package).with_suffix("").parts)).removesuffix(".__init__"): file
        for file in package.rglob("*.py")
    }
    for module, file in modules.items():
        for node in ast.walk(ast.parse(file.read_text())):
            found = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                found = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [wanted if wanted in modules else node.module for wanted in found]
            yield from ((module, wanted) for wanted in found if wanted in modules and wanted != name)


def room(module: str, package: Path) -> str:
    """The module or package at the top that a module lies in; a package's command, `__main__`, is no part of it."""
    parts = module.split(".")
    if len(parts) > 2 and parts[-1] == "__main__":
        return f"{parts[1]}.__main__"
    return parts[1] if len(parts) > 1 else "__init__"


def arrows(package: Path) -> set[tuple[str, str]]:
    """Pairs of rooms of which the first imports from the second; the lazy names of `__init__` do not count."""
    found = {(room(a, package), room(b, package)) for a, b in imports(package)}
    return {(a, b) for a, b in found if a != b and "__init__" not in (a, b)}


def circles(pairs: set[tuple[str, str]]) -> list[set[str]]:
    """Groups of nodes that import each other, directly or not."""
    reach = {a: {b for x, b in pairs if x == a} for pair in pairs for a in pair}
    for middle in reach:
        for a in reach:
            if middle in reach[a]:
                reach[a] |= reach[middle]
    groups = {frozenset(b for b in reach if b in reach[a] and a in reach[b]) for a in reach if a in reach[a]}
    return [set(group) for group in groups]


def measure(package: Path) -> dict[str, int]:
    """Rooms, modules at the top, arrows between rooms, circles of rooms, and floors of what is left without circles."""
    pairs = arrows(package)
    knots = circles(pairs)
    of = {name: min(knot) for knot in knots for name in knot}
    plain = {(of.get(a, a), of.get(b, b)) for a, b in pairs}
    plain = {(a, b) for a, b in plain if a != b}

    def depth(name: str) -> int:
        return 1 + max((depth(b) for a, b in plain if a == name), default=0)

    names = {name for pair in plain for name in pair}
    top = [path for path in package.iterdir() if path.suffix == ".py" and not path.name.startswith("__")]
    return {
        "modules at the top": len(top),
        "rooms": len({name for pair in pairs for name in pair}),
        "arrows": len(pairs),
        "circles": len(knots),
        "floors": max(map(depth, names), default=1),
    }


def floor(module: str) -> int:
    """Number of the floor that a module lies on."""
    parts = module.split(".")
    place = parts[1]
    at_top = len(parts) == 2 and (PACKAGE / f"{place}.py").is_file() and place not in FLOORS[0] | FLOORS[-1]
    if parts[-1] == "__main__" or at_top:
        place = "commands"
    return next(number for number, names in enumerate(FLOORS) if place in names)


def test_rooms_only_look_down():
    upward = [
        f"{a} imports {b}"
        for a, b in imports(PACKAGE)
        if a != "ptune" and floor(a) <= floor(b) and room(a, PACKAGE) != room(b, PACKAGE)
    ]
    assert upward == []


def test_no_module_and_no_room_imports_in_a_circle():
    assert circles({(a, b) for a, b in arrows(PACKAGE) if (PACKAGE / a).is_dir() or (PACKAGE / b).is_dir()}) == []
    # A package's `__init__` gives the names of its modules; a module imports its siblings by their own names.
    modules = {
        (a, b) for a, b in imports(PACKAGE) if a != "ptune" and not (PACKAGE.parent / Path(*b.split("."))).is_dir()
    }
    assert circles(modules) == []


def test_what_lies_at_the_top_can_be_run_but_for_prompts_and_errors():
    top = {path.stem for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    runnable = {
        name
        for name in top
        if any(
            isinstance(node, ast.FunctionDef) and node.name == "main"
            for node in ast.parse((PACKAGE / f"{name}.py").read_text()).body
        )
    }
    assert top - runnable == {"prompts", "errors"}
    assert {path.parent.name for path in PACKAGE.glob("*/*.py")} == {name for names in FLOORS[1:-2] for name in names}


@pytest.mark.parametrize(
    ("files", "upward"),
    [({"a.py": "from p.b import x", "b.py": "x = 1"}, 0), ({"a.py": "import p.b", "b.py": "from p import a"}, 1)],
)
def test_a_circle_is_seen(files, upward, tmp_path):
    (tmp_path / "p").mkdir()
    for name, text in {"__init__.py": "", **files}.items():
        (tmp_path / "p" / name).write_text(text)
    assert measure(tmp_path / "p")["circles"] == upward


if __name__ == "__main__":
    print(measure(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE))
