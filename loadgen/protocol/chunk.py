"""One streamed chunk of an OpenAI-style completion or chat completion, decoded."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from llmtop.printable import clean

MOST_TOKENS = 2**31  # a larger number is not a valid count of tokens
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]

MAX_WORDS = 120  # characters of a server's error message that are kept


class Delta(msgspec.Struct, gc=False):
    """The content that a chat chunk adds. Servers use two names for the text of the reasoning."""

    content: str | None = None
    reasoning_content: str | None = None  # vLLM before 0.11, SGLang
    reasoning: str | None = None  # vLLM
    refusal: str | None = None
    tool_calls: Any = None
    function_call: Any = None  # the older name of tool_calls


class Choice(msgspec.Struct, gc=False):
    """One choice. text: of a completion. delta: of a chat completion."""

    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct, gc=False):
    """Details of the prompt tokens in a usage."""

    cached_tokens: Count | None = None  # found in the prefix cache


class Usage(msgspec.Struct, gc=False):
    """The server's count of tokens."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: PromptDetails | None = None


class Chunk(msgspec.Struct, gc=False):
    """A chunk, or an error in the form of one: an ``error`` member, or ``object`` = "error".

    The fields are in the order in which servers send them, which makes the decoder faster.
    """

    object: str | None = None
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


decode = msgspec.json.Decoder(Chunk).decode


def calls(delta: Delta) -> bool:
    """Whether a chat chunk without content contains a part of a tool call, or a refusal.

    The name of a tool and each piece of its arguments are tokens that the model generated.
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
    """Whether an ``error`` member reports an error; empty values such as "", {}, null, 0 do not."""
    if isinstance(error, dict):
        return any(map(is_fault, error.values()))
    if isinstance(error, list):
        return any(map(is_fault, error))
    return bool(error.strip()) if isinstance(error, str) else bool(error)


def whole(choices: list[Choice]) -> Choice:
    """Merge several choices of one chunk: the first with content, and the last finish reason."""
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
    """The message in an error body of any form, cleaned and shortened; "" without one."""
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
