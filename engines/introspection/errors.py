"""Reasons why an engine cannot show its internal data."""

from __future__ import annotations

from collections.abc import Mapping

from llmtop.engines.core.live_protocol import LiveError


class OlderPlugin(LiveError):
    """The engine's plugin supports only protocol 1."""

    def __init__(self) -> None:
        super().__init__(
            "this engine's plugin is older than this llmtop",
            "restart the engine to see its steps and requests: llmtop restart NAME",
        )


class NotShown(LiveError):
    """The engine's plugin supports protocol 2, but not this ability."""

    def __init__(self, message: str, ability: str) -> None:
        super().__init__(message)
        self.ability = ability


def nobody(errors: Mapping[str, LiveError]) -> LiveError:
    """The error when no process answered, from their errors."""
    found = list(errors.values())
    if len({error.message for error in found}) == 1:
        return found[0]
    words = "; ".join(f"{where}: {error.message}" for where, error in errors.items())
    return LiveError(words, found[0].hint)
