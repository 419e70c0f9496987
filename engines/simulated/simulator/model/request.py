"""A request inside the simulated engine."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from llmtop.engines.simulated.simulator.model.tokens import GeneratedText, Token


class Stage(Enum):
    """The state of a request."""

    ARRIVING = "arriving"  # still in the front end, unknown to the scheduler
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Request:
    """One sequence and its progress. Only the scheduler changes it.

    serial: order of arrival. target: number of tokens that it will generate. output: their text.
    reason: finish reason. affinity: see ``speculation.affinity``. generated: tokens sampled so far;
    a preempted request keeps them and does not send them again. computed: tokens whose keys and
    values are in its blocks. published: full blocks in the prefix cache. hits: prompt tokens found
    in the prefix cache at its first admission. ident: the client's id.
    """

    __slots__ = (
        "_keys",
        "affinity",
        "blocks",
        "computed",
        "generated",
        "hits",
        "ident",
        "output",
        "preemptions",
        "prompt",
        "published",
        "reason",
        "serial",
        "stage",
        "target",
    )

    def __init__(
        self,
        serial: int,
        prompt: Sequence[Token],
        target: int,
        output: GeneratedText,
        reason: str = "length",
        affinity: float = 0.0,
        ident: str = "",
    ) -> None:
        self.serial = serial
        self.prompt = prompt
        self.target = target
        self.output = output
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
        """The length: prompt and sampled tokens."""
        return len(self.prompt) + self.generated

    def key(self, block: int, block_size: int) -> int:
        """The key of a full block: a 64-bit hash of its tokens and of all tokens before it.

        Two prefixes with the same hash would share a block. This is not checked, as it is unlikely.
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
        tokens += [self.output.piece(i) for i in range(first, end - len(self.prompt))]
        return tokens
