"""A method of one of vLLM's objects, replaced so that it can be put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def patch(owner: Any, name: str, replacement: Callable[..., Any]) -> Callable[[], None]:
    """Set ``owner.name``. The result restores the original, unless other code replaced ours."""
    had = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, replacement)

    def undo() -> None:
        if vars(owner).get(name) is not replacement:
            return  # another plugin has wrapped it; ours passes everything through by then
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)

    return undo
