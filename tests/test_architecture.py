"""The rooms of the repository: their size, and that the map of them is complete."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.folders import ROOT

PARTS = (ROOT / "engines", ROOT / "loadgen", ROOT / "tui", ROOT / "llmtop")
LINKS = {"engines", "loadgen", "tui", "themes"}  # in llmtop/, to the folders beside it
MOST_MODULES = 15
MOST_LINES = 350


def rooms() -> Iterator[Path]:
    for part in PARTS:
        for init in part.rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT).parts
            if not (inside[0] == "llmtop" and len(inside) > 1 and inside[1] in LINKS):
                yield init.parent


ROOMS = sorted(rooms())


def name(room: Path) -> str:
    return room.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("room", ROOMS, ids=name)
def test_a_room_is_small_enough_to_be_read(room: Path) -> None:
    modules = [one for one in room.glob("*.py") if one.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES
    for module in modules:
        assert len(module.read_text().splitlines()) <= MOST_LINES, module.name


@pytest.mark.parametrize("room", ROOMS, ids=name)
def test_a_room_says_what_belongs_there(room: Path) -> None:
    assert (room / "__init__.py").read_text().startswith('"""')


def test_the_map_names_each_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    inside_engines = ("plugin", "inside")  # packages that run in an engine's process
    for room in ROOMS:
        parts = [part for part in room.relative_to(ROOT).parts if part != "llmtop"]
        if parts and not any(part in inside_engines for part in parts):
            named = f"{parts[-1]}/" in text or f"/{parts[-1]}`" in text
            assert named, f"docs/architecture.md does not name {name(room)}"
