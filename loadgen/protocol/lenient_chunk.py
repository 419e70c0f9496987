"""Reads chunks that differ from OpenAI's form, as far as their meaning is clear.

``chunk.decode`` is strict and fast. This module decodes what it refuses: content as a list of
parts, a usage in floats or with impossible numbers, members of a wrong type.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmtop.loadgen.core.results import Remark
from llmtop.loadgen.protocol.chunk import MOST_TOKENS, Choice, Chunk, Delta, PromptDetails, Usage

_DEPTH = 8  # most levels of nested parts


def decode(event: bytes) -> tuple[Chunk, tuple[Remark, ...]] | None:
    """The chunk and its anomalies; None if the event is not a chunk. Never raises."""
    try:
        found = msgspec.json.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    choices = found.get("choices")
    if choices is not None and not isinstance(choices, list):
        return None
    remarks: list[Remark] = []
    chunk = Chunk(
        object=_text(found.get("object")),
        choices=[_choice(choice, remarks) for choice in choices or () if isinstance(choice, dict)],
        usage=_usage(found.get("usage"), remarks),
        error=found.get("error"),
    )
    return chunk, tuple(dict.fromkeys(remarks))


def is_stray_fault(event: bytes) -> bool:
    """Whether an event that is not a chunk reports a failure.

    Such events are ``{"type": "error", ...}``, ``{"detail": "..."}`` (FastAPI), and a message with
    a code.
    """
    try:
        found = msgspec.json.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if not isinstance(found, dict):
        return False
    coded = any(isinstance(found.get(name), int) for name in ("code", "status", "status_code"))
    return (
        found.get("type") == "error"
        or bool(found.get("detail"))
        or (coded and bool(found.get("message")))
    )


def _choice(found: dict[str, Any], remarks: list[Remark]) -> Choice:
    delta = found.get("delta")
    return Choice(
        text=_content(found.get("text"), remarks),
        delta=_delta(delta, remarks) if isinstance(delta, dict) else None,
        finish_reason=_text(found.get("finish_reason")),
    )


def _delta(found: dict[str, Any], remarks: list[Remark]) -> Delta:
    return Delta(
        content=_content(found.get("content"), remarks),
        reasoning_content=joined(found.get("reasoning_content")),
        reasoning=joined(found.get("reasoning")),
        refusal=joined(found.get("refusal")),
        tool_calls=found.get("tool_calls"),
        function_call=found.get("function_call"),
    )


def _content(found: Any, remarks: list[Remark]) -> str | None:
    if isinstance(found, list | dict) and found:
        remarks.append(Remark.CONTENT_LIST)
    return joined(found)


def joined(found: Any, depth: int = 0) -> str | None:
    """The text of a string, of a part, or of a list of parts; None if there is none."""
    if isinstance(found, str) or depth > _DEPTH:
        return found if isinstance(found, str) else None
    if isinstance(found, dict):
        for name in ("text", "thinking", "content", "refusal"):
            if (text := joined(found.get(name), depth + 1)) is not None:
                return text
    if isinstance(found, list):
        return "".join(text for part in found if (text := joined(part, depth + 1))) or None
    return None


def _usage(found: Any, remarks: list[Remark]) -> Usage | None:
    if not isinstance(found, dict):
        return None
    details = found.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    usage = Usage(
        prompt_tokens=_count(found.get("prompt_tokens")),
        completion_tokens=_count(found.get("completion_tokens")),
        prompt_tokens_details=PromptDetails(_count(cached)),
    )
    reported = found.get("completion_tokens")
    if reported is not None and usage.completion_tokens is None:
        remarks.append(Remark.USAGE_IMPOSSIBLE)
    elif isinstance(reported, float):
        remarks.append(Remark.USAGE_FLOAT)
    return usage


def _count(found: Any) -> int | None:
    """A count of tokens, or None: 8 and 8.0 are valid; 8.5, -1, true and 10**30 are not."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return int(found) if 0 <= found <= MOST_TOKENS and found == int(found) else None


def _text(found: Any) -> str | None:
    return found if isinstance(found, str) else None
