"""Options that SGLang itself can change while it runs, by ``set_internal_state``.

Up to 0.5.23 it accepts a few keys. A proposal (sglang#37661) adds more, among them llmtop's
options. The plugin asks this version for its keys. It sets such a key by SGLang, because SGLang
then updates everything that depends on it.
"""

from __future__ import annotations

from typing import Any


class NativeOptions:
    """The keys of one scheduler's ``set_internal_state``. Runs on the scheduler's thread."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self.keys = _keys(scheduler)

    def takes(self, name: str) -> bool:
        """Whether SGLang itself can set this key."""
        return name in self.keys

    def set(self, name: str, value: Any) -> None:
        """Set the key. RuntimeError if SGLang refuses."""
        from sglang.srt.managers.io_struct import SetInternalStateReq

        request = SetInternalStateReq(server_args={name: value})
        if not self._scheduler.set_internal_state(request).updated:
            raise RuntimeError(f"SGLang refused {name}={value}")


def _keys(scheduler: Any) -> frozenset[str]:
    """The keys, from the table in 0.5.22 and later; none for earlier versions."""
    table = getattr(getattr(scheduler, "internal_state", None), "_update_handlers", None)
    if not callable(table):
        return frozenset()
    try:
        return frozenset(str(key) for key in table())
    except Exception:
        return frozenset()
