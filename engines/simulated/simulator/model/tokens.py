"""Text and tokens: a simple rule instead of a tokenizer, and the vocabulary of the answers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

Token = int | str
"""A token id from a prompt of ids, or a piece of four characters from a text."""

CHARACTERS = 4
"""Characters per token: the usual rule of thumb for English text and Llama's vocabulary."""


def tokenize(text: str) -> list[Token]:
    """Split a text into pieces of four characters; the number is ceil(characters / 4)."""
    return [text[i : i + CHARACTERS] for i in range(0, len(text), CHARACTERS)]


def chat_tokens(messages: Sequence[tuple[str, str]]) -> list[Token]:
    """The tokens of a conversation of (role, content), with marker tokens around each message.

    Each message is tokenised separately. So an answer that a client sends back as history has the
    same tokens again, and the prefix cache finds it.
    """
    tokens: list[Token] = []
    for role, content in messages:
        tokens.append(f"<|{role}|>")
        tokens.extend(tokenize(content))
        tokens.append("<|end|>")
    tokens.append("<|assistant|>")
    return tokens


def repetition(tokens: Sequence[Token]) -> float:
    """The share of token pairs that repeat earlier pairs, 0 to 1, which an n-gram lookup finds."""
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
"""Words of exactly four ASCII characters that need no JSON escapes."""

VOCABULARY_BYTES = tuple(word.encode() for word in VOCABULARY)


class GeneratedText:
    """The text of an answer: any token of it can be computed from two numbers.

    start: index of its first word in the vocabulary. period: number of tokens after which it
    repeats.
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
