"""A request inside the simulated engine."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from llmtop.engines.simulated.simulator.model.tokens import Token, Writing


class Stage(Enum):
    """Where a request is."""

    ARRIVING = "arriving"  # still in the front end, unknown to the scheduler
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Request:
    """One sequence and how far it has come. The scheduler alone changes it.

    serial: order of arrival. target: tokens that it will generate. reason: why it will end there.
    affinity: how well its tokens can be guessed, 0..1, see ``speculation``.
    generated: tokens sampled so far; they stay when it is preempted, and are not sent again.
    computed: tokens whose keys and values are in its blocks. hits: prompt tokens found in the
    prefix cache at its first admission. ident: what its client calls it.
    """

    __slots__ = (
        "_keys",
        "affinity",
        "blocks",
        "computed",
        "generated",
        "hits",
        "ident",
        "preemptions",
        "prompt",
        "published",
        "reason",
        "serial",
        "stage",
        "target",
        "writing",
    )

    def __init__(
        self,
        serial: int,
        prompt: Sequence[Token],
        target: int,
        writing: Writing,
        reason: str = "length",
        affinity: float = 0.0,
        ident: str = "",
    ) -> None:
        self.serial = serial
        self.prompt = prompt
        self.target = target
        self.writing = writing
        self.reason = reason
        self.affinity = affinity
        self.ident = ident
        self.stage = Stage.ARRIVING
        self.generated = 0
        self.computed = 0
        self.blocks: list[int] = []
        self.published = 0
        self.hits: int | None = None
        self.preemptions = 0
        self._keys: list[int] = []

    @property
    def total(self) -> int:
        """Tokens known so far: the prompt and what was sampled."""
        return len(self.prompt) + self.generated

    def key(self, block: int, block_size: int) -> int:
        """The key of a full block: a hash of its tokens and of all tokens before it.

        Two different prefixes of one hash would share a block; at 64 bits that is left to chance.
        """
        keys = self._keys
        while len(keys) <= block:
            begin = len(keys) * block_size
            before = keys[-1] if keys else 0
            keys.append(hash((before, *self._tokens(begin, begin + block_size))))
        return keys[block]

    def _tokens(self, begin: int, end: int) -> list[Token]:
        tokens = list(self.prompt[begin:end])
        first = max(begin - len(self.prompt), 0)
        tokens += [self.writing.piece(i) for i in range(first, end - len(self.prompt))]
        return tokens
