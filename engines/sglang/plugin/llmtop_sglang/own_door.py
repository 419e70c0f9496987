"""SGLang's own way to change options while it runs, where it takes more than it used to.

``set_internal_state`` takes a few keys up to 0.5.23. A proposal (sglang#37661) adds more, among
them ours. What this version takes is asked of it; where it takes a key, it is set that way, and
SGLang sees to all that depends on it.
"""

from __future__ import annotations

from typing import Any


class OwnDoor:
    """What one scheduler's ``set_internal_state`` takes. On its thread."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.keys = _keys(scheduler)

    def takes(self, name: str) -> bool:
        """Whether this key is SGLang's own to set."""
        return name in self.keys

    def set(self, name: str, value: Any) -> None:
        """Set it. Raises RuntimeError when SGLang refuses."""
        from sglang.srt.managers.io_struct import SetInternalStateReq

        request = SetInternalStateReq(server_args={name: value})
        if not self._scheduler.set_internal_state(request).updated:
            raise RuntimeError(f"SGLang refused {name}={value}")


def _keys(scheduler: Any) -> frozenset[str]:
    """0.5.22 and later keep a table of them; older ones take only what llmtop knows of."""
    table = getattr(getattr(scheduler, "internal_state", None), "_update_handlers", None)
    if not callable(table):
        return frozenset()
    try:
        return frozenset(str(key) for key in table())
    except Exception:
        return frozenset()
