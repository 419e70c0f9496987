"""Textual's private names: the installed Textual has them, and one room of ours uses them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import textual

from llmtop.tui.textual_private.names import MODULES, USED, VERSION
from tests.folders import ROOT

HERE = ROOT / "tui" / "textual_private"
PRIVATE = {name for names in USED.values() for name in names if name.startswith("_")}


def changes(where: str, names: dict[str, tuple[str, ...] | None]) -> Iterator[str]:
    """What differs in the installed Textual, one sentence for each name."""
    module, _, name = where.partition(":")
    try:
        kind: type[Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        yield f"{where} is gone"
        return
    ours = [one for one in kind.__mro__ if one.__module__.startswith("textual.")]
    source = "".join(map(inspect.getsource, ours))
    for used, parameters in names.items():
        found = getattr(kind, used, None)
        if parameters is not None and callable(found):
            taken = list(inspect.signature(found).parameters)
            missing = [one for one in parameters if one not in taken]
            if missing:
                yield f"{where}.{used} no longer takes {', '.join(missing)}; it takes {taken}"
        elif parameters is not None or (
            found is None and not re.search(rf"\bself\.{used}\b(: [^=\n]+)? = ", source)
        ):
            yield f"{where}.{used} is gone"


@pytest.mark.parametrize("where", USED)
def test_the_installed_textual_has_the_private_names(where: str) -> None:
    found = list(changes(where, USED[where]))
    advice = f"llmtop was written for Textual {VERSION}; this is {textual.__version__}"
    assert not found, f"{advice}. See tui/textual_private.\n" + "\n".join(found)


def test_a_change_is_named() -> None:
    where = "textual.app:App"
    assert list(changes(where, {"_never": None})) == [f"{where}._never is gone"]
    assert list(changes(where, {"_never": ()})) == [f"{where}._never is gone"]
    (words,) = changes(where, {"_unnotify": ("notification", "other")})
    assert words.startswith(f"{where}._unnotify no longer takes other")
    assert list(changes("textual.app:Never", {})) == ["textual.app:Never is gone"]


def outside() -> Iterator[Path]:
    for path in sorted((ROOT / "tui").rglob("*.py")):
        if path.parent != HERE:
            yield path


def place(path: Path, node: ast.stmt | ast.expr) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}"


def test_no_other_module_of_the_screen_uses_a_private_name_of_textual() -> None:
    found = []
    for path in outside():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("textual._"):
                found.append(f"{place(path, node)} imports {node.module}")
            elif isinstance(node, ast.Attribute) and node.attr in PRIVATE:
                if ast.unparse(node) != "os._exit":
                    found.append(f"{place(path, node)} uses {node.attr}")
            elif isinstance(node, ast.FunctionDef) and node.name in PRIVATE:
                found.append(f"{place(path, node)} overrides {node.name}")
    assert not found, "\n".join(found)


def test_each_name_in_the_list_is_used() -> None:
    text = "".join(path.read_text() for path in HERE.glob("*.py") if path.name != "names.py")
    public = (ROOT / "tui" / "terminal" / "driver.py").read_text()
    for names in USED.values():
        for name in names:
            assert name in text + public, f"{name} is not used any more"
    for module in MODULES:
        assert f"from {module} import" in text
