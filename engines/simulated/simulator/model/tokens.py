"""Text and tokens: a rule in place of a tokenizer, and the words that the engine answers with."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

Token = int | str
"""A prompt given as ids keeps them; text becomes pieces of four characters."""

CHARACTERS = 4
"""Characters a token: the usual rule of thumb for English text and Llama's vocabulary."""


def tokenize(text: str) -> list[Token]:
    """Pieces of four characters, the last one shorter: len = ceil(characters / 4)."""
    return [text[i : i + CHARACTERS] for i in range(0, len(text), CHARACTERS)]


def chat_tokens(messages: Sequence[tuple[str, str]]) -> list[Token]:
    """A conversation of (role, content): each message its own pieces between two marks.

    Tokenised message by message, so that an answer of ours, sent back as history, falls into the
    same pieces again and is found in the prefix cache.
    """
    tokens: list[Token] = []
    for role, content in messages:
        tokens.append(f"<|{role}|>")
        tokens.extend(tokenize(content))
        tokens.append("<|end|>")
    tokens.append("<|assistant|>")
    return tokens


def repetition(tokens: Sequence[Token]) -> float:
    """How much of a prompt an n-gram lookup would find again: share of repeated pairs, 0..1."""
    pairs = len(tokens) - 1
    if pairs < 1:
        return 0.0
    return 1.0 - len(set(itertools.pairwise(tokens))) / pairs


def _vocabulary() -> tuple[str, ...]:
    first, vowels, last = "bdfgklmnprstvz", "aeiou", "lmnrst"
    words = [f" {a}{b}{c}" for a in first for b in vowels for c in last]
    random.Random(0).shuffle(words)
    return tuple(words)


VOCABULARY = _vocabulary()
"""Words of exactly four ASCII characters, none of which JSON must escape."""

VOCABULARY_BYTES = tuple(word.encode() for word in VOCABULARY)


class Writing:
    """What a request will be answered with: token i of it, for any i, from two numbers.

    start: where in the vocabulary it begins. period: after how many tokens it repeats itself.
    """

    __slots__ = ("period", "start")

    def __init__(self, start: int, period: int | None = None) -> None:
        self.start = start
        self.period = min(period or len(VOCABULARY), len(VOCABULARY))

    def piece(self, index: int) -> str:
        """The text of token ``index``, four characters."""
        return VOCABULARY[(self.start + index % self.period) % len(VOCABULARY)]

    def piece_bytes(self, index: int) -> bytes:
        """The same, encoded."""
        return VOCABULARY_BYTES[(self.start + index % self.period) % len(VOCABULARY)]

    def text(self, begin: int, end: int) -> str:
        """The text of the tokens from ``begin`` up to, not including, ``end``."""
        return "".join(map(self.piece, range(begin, end)))
