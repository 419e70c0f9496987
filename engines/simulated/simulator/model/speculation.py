"""Speculative decoding: how many tokens are proposed and accepted."""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct

from llmtop.engines.simulated.simulator.model.tokens import Token, repetition

LEAST_AFFINITY = 0.05  # chance matches in random text at temperature 1


def affinity(prompt: Sequence[Token], temperature: float) -> float:
    """How predictable a request's next tokens are, 0 to 1.

    It is the maximum of two values: the repetition of the prompt, and 1 - temperature. Source of
    the second: on an H200 with random weights, all drafts of greedy text were accepted, and none at
    temperature 1.
    """
    return min(1.0, max(LEAST_AFFINITY, repetition(prompt), 1.0 - temperature))


class Speculation(Struct, frozen=True):
    """The speculation of an engine, configured at launch. The number of tokens can be lowered live.

    method: "ngram" looks up the last tokens in the text so far, and proposes with the probability
    of the request's affinity. "draft" is a small model that always proposes. tokens: draft tokens
    per step and request. acceptance: probability that a draft token of a request with affinity 1 is
    accepted; the first rejected token ends the draft.
    """

    method: str
    tokens: int
    acceptance: float

    def propose(self, affinity: float, limit: int, rng: random.Random) -> int:
        """The number of draft tokens for one request in one step: ``limit`` or 0."""
        if limit < 1 or (self.method == "ngram" and rng.random() >= affinity):
            return 0
        return limit

    def accept(self, affinity: float, drafts: int, rng: random.Random) -> int:
        """The number of accepted draft tokens.

        A draft model is accepted half as often at affinity 0 as at affinity 1 (an assumption).
        """
        share = affinity if self.method == "ngram" else 0.5 + 0.5 * affinity
        chance = self.acceptance * share
        accepted = 0
        while accepted < drafts and rng.random() < chance:
            accepted += 1
        return accepted


def parse(text: str, acceptance: float) -> Speculation:
    """Parse ``METHOD:TOKENS`` as in ``ngram:4``. Raises ValueError with a message for users."""
    method, _, count = text.partition(":")
    if method not in ("ngram", "draft"):
        raise ValueError(f"unknown method {method!r} (choose from ngram, draft)")
    if not count.isascii() or not count.isdigit() or not 1 <= int(count) <= 16:
        raise ValueError("expected METHOD:TOKENS with 1 to 16 tokens, as in ngram:4")
    return Speculation(method, int(count), acceptance)
