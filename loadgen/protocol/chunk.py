"""One streamed chunk of an OpenAI-style completion or chat completion, decoded."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from llmtop.printable import clean

MOST_TOKENS = 2**31  # beyond, it is no count of tokens
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]

MAX_WORDS = 120  # of a server's own words in an error


class Delta(msgspec.Struct, gc=False):
    """What a chat chunk adds. A reasoning model's thoughts have two names in the field."""

    content: str | None = None
    reasoning_content: str | None = None  # vLLM before 0.11, SGLang
    reasoning: str | None = None  # vLLM
    refusal: str | None = None
    tool_calls: Any = None
    function_call: Any = None  # what tool_calls was called before


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


def calls(delta: Delta) -> bool:
    """Whether a chat chunk without content adds to a call of a tool, or refuses to answer.

    The name of a tool and each piece of its arguments are tokens that the model made.
    """
    if delta.refusal:
        return True
    found = delta.tool_calls if isinstance(delta.tool_calls, list) else []
    for call in (*found, {"function": delta.function_call}):
        if not isinstance(call, dict):
            continue
        for part in (call.get("function"), call.get("custom")):
            if isinstance(part, dict) and any(
                isinstance(part.get(name), str | dict) and part[name]
                for name in ("name", "arguments", "input")
            ):
                return True
    return False


def is_fault(error: Any) -> bool:
    """Whether an ``error`` member says that there is one: "", {}, null, 0 and the like do not."""
    if isinstance(error, dict):
        return any(map(is_fault, error.values()))
    if isinstance(error, list):
        return any(map(is_fault, error))
    return bool(error.strip()) if isinstance(error, str) else bool(error)


def whole(choices: list[Choice]) -> Choice:
    """Several choices in one chunk as one: their text is output too."""
    found = Choice(choices[0].text, choices[0].delta, choices[0].finish_reason)
    for choice in choices[1:]:
        if not (found.text or _adds(found.delta)):
            found.text, found.delta = choice.text, choice.delta
        found.finish_reason = choice.finish_reason or found.finish_reason
    return found


def _adds(delta: Delta | None) -> bool:
    return delta is not None and bool(
        delta.content or delta.reasoning_content or delta.reasoning or calls(delta)
    )


def error_words(data: bytes) -> str:
    """The message inside an error body, whatever its shape, cleaned and short; "" without one."""
    found: Any
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        found = data.decode("utf-8", "replace")
    for name in ("error", "detail", "message"):
        if isinstance(found, dict) and is_fault(found.get(name)):
            found = found[name]
    if isinstance(found, dict | list):
        found = msgspec.json.encode(found).decode("utf-8", "replace")
    words = "" if found is None else str(found)[: 8 * MAX_WORDS]
    return clean(" ".join(words.split()), MAX_WORDS)
