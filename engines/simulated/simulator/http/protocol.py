"""Requests in OpenAI's format: parsing, validation, and errors in vLLM's format."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from llmtop.engines.simulated.simulator.model.speculation import affinity
from llmtop.engines.simulated.simulator.model.tokens import (
    GeneratedText,
    Token,
    chat_tokens,
    tokenize,
)

NATURAL_MEDIAN = 180  # tokens of an answer that ends by itself: a lognormal distribution
NATURAL_SIGMA = 0.6
REPETITIVE = 0.5  # with at least this affinity, an answer repeats itself
PERIOD = 16  # tokens after which it repeats

Body = TypeVar("Body")


class ApiError(Exception):
    """A request that is answered with an error.

    param: the invalid field, "" for none. retry_after_s: when to retry; None if the answer would be
    the same.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        kind: str = "BadRequestError",
        param: str = "",
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The JSON body of the error."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param or None,
                "code": self.status,
            }
        }


class StreamOptions(msgspec.Struct):
    """Options of a stream. Other fields are ignored."""

    include_usage: bool = False


class Sampling(msgspec.Struct, kw_only=True):
    """Fields that both kinds of request share. Other fields are ignored."""

    model: str | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    temperature: float | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class CompletionBody(Sampling, kw_only=True):
    """POST /v1/completions. prompt: a text, a list of token ids, or a list with one of these."""

    prompt: str | list[int | str | list[int]]


class Part(msgspec.Struct):
    """A part of a message. Only its text is used."""

    text: str = ""


class Message(msgspec.Struct):
    """A message of a chat."""

    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        """The text of the whole message."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ChatBody(Sampling, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None


class CheckedRequest(Struct, frozen=True):
    """A validated request. target: tokens that it will generate. reason: finish reason."""

    prompt: Sequence[Token]
    max_tokens: int
    target: int
    reason: str
    affinity: float
    output: GeneratedText
    stream: bool
    include_usage: bool


class Rules(Struct, frozen=True):
    """The limits that a request must satisfy. max_model_len: tokens. vocabulary: token ids."""

    served_name: str
    max_model_len: int
    vocabulary: int


def decode(raw: bytes, kind: type[Body]) -> Body:
    """Parse a JSON body. Raises ApiError."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"Cannot read the request: {error}") from None


def check_completion(body: CompletionBody, rules: Rules, rng: random.Random) -> CheckedRequest:
    """Validate a completion. The default of max_tokens is 16, as in OpenAI's API.

    Raises ApiError.
    """
    prompt = _prompt(body.prompt, rules.vocabulary)
    return _check(body, prompt, 16 if body.max_tokens is None else body.max_tokens, rules, rng)


def check_chat(body: ChatBody, rules: Rules, rng: random.Random) -> CheckedRequest:
    """Validate a chat. By default it generates as many tokens as fit. Raises ApiError."""
    if not body.messages:
        raise ApiError("messages must not be empty", param="messages")
    prompt = chat_tokens([(message.role, message.text) for message in body.messages])
    most = body.max_completion_tokens
    if most is None:
        most = body.max_tokens
    if most is None:
        most = max(1, rules.max_model_len - len(prompt))
    return _check(body, prompt, most, rules, rng)


def _check(
    body: Sampling, prompt: Sequence[Token], most: int, rules: Rules, rng: random.Random
) -> CheckedRequest:
    if body.model is not None and body.model != rules.served_name:
        text = f"The model `{body.model[:200]}` does not exist."
        raise ApiError(text, 404, "NotFoundError", "model")
    if body.n not in (None, 1):
        raise ApiError("n must be 1: this engine returns one answer", param="n")
    if most < 1:
        raise ApiError(f"max_tokens must be at least 1, got {most}", param="max_tokens")
    if not 0 <= body.min_tokens <= most:
        raise ApiError(f"min_tokens must be within 0..{most}", param="min_tokens")
    temperature = 1.0 if body.temperature is None else body.temperature
    if not 0.0 <= temperature <= 10.0:
        raise ApiError(f"temperature must be within 0..10, got {temperature}", param="temperature")
    if not prompt:
        raise ApiError("The prompt is empty", param="prompt")
    if len(prompt) + most > rules.max_model_len:
        raise ApiError(
            f"This model's maximum context length is {rules.max_model_len} tokens; "
            f"{len(prompt)} in the prompt and {most} to generate exceed it.",
            param="prompt",
        )
    target, reason = most, "length"
    if not body.ignore_eos:
        natural = body.min_tokens + math.ceil(
            rng.lognormvariate(math.log(NATURAL_MEDIAN), NATURAL_SIGMA)
        )
        if natural < most:
            target, reason = natural, "stop"
    guessable = affinity(prompt, temperature)
    return CheckedRequest(
        prompt,
        most,
        target,
        reason,
        guessable,
        GeneratedText(rng.randrange(1 << 16), PERIOD if guessable >= REPETITIVE else None),
        bool(body.stream),
        bool(body.stream_options and body.stream_options.include_usage),
    )


def _prompt(given: str | list[int | str | list[int]], vocabulary: int) -> Sequence[Token]:
    if isinstance(given, str):
        return tokenize(given)
    if given and not isinstance(given[0], int):
        if len(given) > 1:
            raise ApiError("This engine accepts one prompt per request", param="prompt")
        return _prompt(given[0], vocabulary)  # type: ignore[arg-type]
    ids = [token for token in given if type(token) is int]
    if len(ids) < len(given):
        raise ApiError("A prompt of token ids must contain nothing else", param="prompt")
    if ids and not 0 <= min(ids) <= max(ids) < vocabulary:
        raise ApiError(f"A token id is not within 0..{vocabulary - 1}", param="prompt")
    return ids
