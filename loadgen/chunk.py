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

PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')  # stand for themselves
_MARKS = (b'"text":"', b'"content":"')
_PROBE = "b c"


def surroundings(event: bytes) -> tuple[bytes, bytes] | None:
    """What an event has before and after the text of its first choice; None where that is not told.

    With any ``PLAIN`` bytes in that place an event means the same but for its text: the place is
    inside one JSON string, which those bytes neither end nor change in any other way. That it is
    the text's is tried out.
    """
    if b"\n" in event or b"\r" in event:
        return None  # it came in several lines
    for mark in _MARKS:
        begin = event.find(mark) + len(mark)
        end = event.find(b'"', begin)
        if begin < len(mark) or end < 0 or event[begin:end].translate(None, PLAIN):
            continue
        before, after = event[:begin], event[end:]
        chunk = decode(before + _PROBE.encode() + after)
        choice = chunk.choices[0] if chunk.choices else None
        if choice is None or choice.finish_reason is not None or chunk.usage is not None:
            return None
        if (choice.text if choice.delta is None else choice.delta.content) == _PROBE:
            return before, after
    return None


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
