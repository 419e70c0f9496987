"""Reads fields of saved JSON documents. The documents are untrusted.

A file may come from another version, another program or another person. So a field of a wrong type
is read as unknown. Text is reduced to one printable line of bounded length. A list is read up to a
limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from llmtop.printable import clean

TEXT_LIMIT = 400
LIST_LIMIT = 2000


def at(document: Any, *path: str) -> Any:
    """The value under a path of names in nested objects; None where it is missing."""
    for name in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document


def number(document: Any, *path: str) -> float | None:
    """A finite number; None for anything else."""
    value = at(document, *path)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        as_float = float(value)
    except OverflowError:
        return None
    return as_float if math.isfinite(as_float) else None


def whole(document: Any, *path: str) -> int | None:
    """A whole number; None for anything else."""
    value = number(document, *path)
    return int(value) if value is not None and value == int(value) else None


def text(document: Any, *path: str, limit: int = TEXT_LIMIT) -> str:
    """One printable line of text, at most ``limit`` characters; "" for anything else."""
    value = at(document, *path)
    return clean(value, limit) if isinstance(value, str) else ""


def flag(document: Any, *path: str) -> bool | None:
    """True or false; None for anything else."""
    value = at(document, *path)
    return value if isinstance(value, bool) else None


def items(document: Any, *path: str) -> list[Any]:
    """The objects among the first ``LIST_LIMIT`` entries of a list; [] for anything else."""
    value = at(document, *path)
    if not isinstance(value, list):
        return []
    return [one for one in value[:LIST_LIMIT] if isinstance(one, Mapping)]


def entries(document: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """The first ``LIST_LIMIT`` pairs of an object: printable name, unchecked value."""
    value = at(document, *path)
    if isinstance(value, Mapping):
        for name, one in list(value.items())[:LIST_LIMIT]:
            yield clean(str(name), 80), one


def plain(value: Any) -> str:
    """A simple value as text: numbers, words and short lists; ``--`` for unknown."""
    if value is None:
        return "--"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return f"{value:,g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, list):
        return " ".join(plain(one) for one in value[:32])
    if isinstance(value, str):
        return clean(value, TEXT_LIMIT) or "--"
    return "--"
