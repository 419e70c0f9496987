"""Responses in OpenAI's format, and stream events that are assembled from prepared bytes."""

from __future__ import annotations

import json
from typing import Any

from llmtop.engines.simulated.simulator.model.tokens import CHARACTERS, GeneratedText

DONE = b"data: [DONE]\n\n"


class Frames:
    """The events of one stream.

    The parts that all events of a stream share are encoded once, so an event is a concatenation of
    three byte strings. framed: with the chunk sizes of HTTP/1.1, for writes that bypass aiohttp.
    """

    __slots__ = ("_base", "_chat", "_end", "_framed", "_head", "_one", "_opening", "_output")

    def __init__(
        self,
        ident: str,
        created: int,
        model: str,
        output: GeneratedText,
        *,
        chat: bool,
        framed: bool,
    ) -> None:
        kind = "chat.completion.chunk" if chat else "text_completion"
        self._base = {"id": ident, "object": kind, "created": created, "model": model}
        self._chat = chat
        self._output = output
        self._framed = framed
        event = _event({**self._base, "choices": [self._choice("\0", None)]})
        head, end = event.rsplit(b"\\u0000", 1)  # the last one: the model's name can contain it
        self._head = head
        self._end = end + b"\r\n" if framed else end
        self._one = self._size(1) + head
        self._opening = b""
        if chat:
            delta = {"role": "assistant", "content": ""}
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
            self._opening = _event({**self._base, "choices": [choice]})

    def tokens(self, begin: int, count: int) -> bytes:
        """One event with ``count`` tokens, starting at token ``begin``."""
        if count == 1 and begin:
            return self._one + self._output.piece_bytes(begin) + self._end
        text = self._output.text(begin, begin + count).encode()
        event = self._size(count) + self._head + text + self._end
        if begin or not self._opening:
            return event
        opening = self._opening
        if self._framed:
            opening = b"%x\r\n%b\r\n" % (len(opening), opening)
        return opening + event

    def last(self, begin: int, count: int, reason: str, usage: dict[str, Any] | None) -> bytes:
        """The rest of the stream, without chunk sizes."""
        text = self._output.text(begin, begin + count)
        parts = [b"" if begin else self._opening]
        parts.append(_event({**self._base, "choices": [self._choice(text, reason)]}))
        if usage is not None:
            parts.append(_event({**self._base, "choices": [], "usage": usage}))
        parts.append(DONE)
        return b"".join(parts)

    def failed(self, error: dict[str, Any]) -> bytes:
        """The end of a stream without a token: an error, so that no client sees it as a success."""
        return _event(error) + DONE

    def _choice(self, text: str, reason: str | None) -> dict[str, Any]:
        content: dict[str, Any] = {"delta": {"content": text}} if self._chat else {"text": text}
        stop = {"logprobs": None, "finish_reason": reason, "stop_reason": None}
        return {"index": 0, **content, **stop}

    def _size(self, count: int) -> bytes:
        if not self._framed:
            return b""
        return b"%x\r\n" % (len(self._head) + CHARACTERS * count + len(self._end) - 2)


def usage(prompt: int, generated: int, cached: int) -> dict[str, Any]:
    """The usage object of a response; the arguments are numbers of tokens."""
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + generated,
        "completion_tokens": generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def whole(
    ident: str, created: int, model: str, text: str, reason: str, used: dict[str, Any], chat: bool
) -> dict[str, Any]:
    """A response that is not streamed."""
    content: dict[str, Any] = {"text": text}
    if chat:
        content = {"message": {"role": "assistant", "content": text}}
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": reason, "stop_reason": None}
    return {
        "id": ident,
        "object": "chat.completion" if chat else "text_completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": used,
    }


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"
