"""Replaces a method of a vLLM object or class, and can restore it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def patch(owner: Any, name: str, replacement: Callable[..., Any]) -> Callable[[], None]:
    """Set ``owner.name``. The returned function restores it, unless other code replaced ours."""
    had = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, replacement)

    def undo() -> None:
        if vars(owner).get(name) is not replacement:
            return  # another plugin has wrapped it; our function then only calls the original
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)

    return undo
