"""Speculative decoding: what is proposed and what of it is accepted."""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct

from llmtop.engines.simulated.simulator.model.tokens import Token, repetition

LEAST_AFFINITY = 0.05  # something is found by chance even in random text at temperature 1


def affinity(prompt: Sequence[Token], temperature: float) -> float:
    """How well a request's next tokens can be guessed, 0..1.

    The better of two reasons: the prompt repeats itself (share of its token pairs that were there
    before), or sampling is greedy (1 at temperature 0, 0 from temperature 1 up; on an H200 with
    random weights greedy text was accepted to 100 %, text at temperature 1 never).
    """
    return min(1.0, max(LEAST_AFFINITY, repetition(prompt), 1.0 - temperature))


class Speculation(Struct, frozen=True):
    """How drafts are made. Armed at launch; the number of draft tokens can go down live.

    method "ngram": looks the last tokens up in the text so far, so it proposes something only as
    often as the request's affinity says. "draft": a small model that always proposes.
    acceptance: chance of a draft token of a perfectly guessable request, each in its turn; the
    first one refused ends the draft.
    """

    method: str
    tokens: int
    acceptance: float

    def propose(self, affinity: float, limit: int, rng: random.Random) -> int:
        """Draft tokens for one request in one step, at most ``limit``."""
        if limit < 1 or (self.method == "ngram" and rng.random() >= affinity):
            return 0
        return limit

    def accept(self, affinity: float, drafts: int, rng: random.Random) -> int:
        """How many of the draft tokens the model agrees with.

        A draft model is right half as often on text that cannot be guessed as on text that can.
        """
        share = affinity if self.method == "ngram" else 0.5 + 0.5 * affinity
        chance = self.acceptance * share
        accepted = 0
        while accepted < drafts and rng.random() < chance:
            accepted += 1
        return accepted


def parse(text: str, acceptance: float) -> Speculation:
    """``METHOD:TOKENS`` as in ``ngram:4``. Raises ValueError in words."""
    method, _, count = text.partition(":")
    if method not in ("ngram", "draft"):
        raise ValueError(f"unknown method {method!r} (choose from ngram, draft)")
    if not count.isascii() or not count.isdigit() or not 1 <= int(count) <= 16:
        raise ValueError("expected METHOD:TOKENS with 1 to 16 tokens, as in ngram:4")
    return Speculation(method, int(count), acceptance)
