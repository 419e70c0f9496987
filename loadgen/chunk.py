"""One streamed chunk of an OpenAI-style completion or chat completion, decoded."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]  # beyond, it is no count of tokens

MAX_WORDS = 120  # of a server's own words in an error


class Delta(msgspec.Struct, gc=False):
    """What a chat chunk adds. A reasoning model's thoughts have two names in the field."""

    content: str | None = None
    reasoning_content: str | None = None  # vLLM before 0.11, SGLang
    reasoning: str | None = None  # vLLM


class Choice(msgspec.Struct, gc=False):
    """text: completions; delta: chat."""

    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct, gc=False):
    """Where a prompt's tokens came from."""

    cached_tokens: Count | None = None  # found in the prefix cache


class Usage(msgspec.Struct, gc=False):
    """The server's own count of tokens."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None


class Chunk(msgspec.Struct, gc=False):
    """A chunk, or an error that was sent as one: an ``error`` member, or ``object`` = "error".

    In the order in which servers send them, so that the decoder looks for each in its place.
    """

    object: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


decode = msgspec.json.Decoder(Chunk).decode


def error_words(data: bytes) -> str:
    """The message inside an error body, whatever its shape, cleaned and short; "" without one."""
    found: Any
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        found = data.decode("utf-8", "replace")
    for name in ("error", "detail", "message"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    if isinstance(found, dict | list):
        found = msgspec.json.encode(found).decode("utf-8", "replace")
    return clean(str(found)) if found is not None else ""


def clean(text: str) -> str:
    """Somebody else's words, fit to be shown: one printable line of at most 120 characters."""
    words = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_WORDS]).split()
    line = " ".join(words)
    return line if len(line) <= MAX_WORDS else line[: MAX_WORDS - 3] + "..."
