"""Why an engine is slow: the causes, their evidence, and what would change them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from llmtop.diagnosis.state_rules import Level
from llmtop.engines.core.options import Applies, OptionValue

Evidence = Mapping[str, float | int | str | bool | None]


class Cause(StrEnum):
    """What takes the time of requests, in the words of ``why --json``."""

    NONE = "none"
    BATCH_LIMIT = "batch_limit"
    KV_CACHE = "kv_cache"
    PREFILL = "prefill"
    TOKEN_BUDGET = "token_budget"
    DECODE = "decode"
    HOST = "host"
    FRONT_END = "front_end"
    SPECULATION = "speculation"
    GPU_THROTTLED = "gpu_throttled"
    CLIENT = "client"
    LONG_REQUESTS = "long_requests"
    HUNG = "hung"
    UNKNOWN = "unknown"


class Knob(Struct, frozen=True):
    """An option that would change a cause. expected: what it would change, by name; {}: unknown.

    applies: how a change of it applies on this engine.
    """

    option: str
    before: OptionValue
    after: OptionValue
    applies: Applies
    expected: Mapping[str, float] = field(default_factory=dict)
    basis: str = ""  # what the expected values are computed from, in words


class CauseFound(Struct, frozen=True):
    """One cause. share: of the time that requests spend from the client's send to their end, 0..1;
    None where only its presence is known.

    words: the cause in a short clause. details: its evidence, one sentence each. advice: what
    helps where no option does, "" when nothing is known.
    """

    cause: Cause
    share: float | None
    words: str
    evidence: Evidence = field(default_factory=dict)
    details: tuple[str, ...] = ()
    knob: Knob | None = None
    advice: str = ""


class Explanation(Struct, frozen=True):
    """The state of one engine and its causes, the largest first; there is at least one cause.

    window_s: of the steps or samples that the shares are computed from. steps: how many steps, 0
    without any. missing: what could not be seen, with reasons. not_limits: what was looked at and
    found to be no limit, one sentence each.
    """

    time: float
    window_s: float
    level: Level
    reasons: tuple[str, ...]
    causes: tuple[CauseFound, ...]
    steps: int = 0
    missing: Mapping[str, str] = field(default_factory=dict)
    not_limits: tuple[str, ...] = ()
    idle: bool = False

    @property
    def main(self) -> CauseFound:
        """The largest cause."""
        return self.causes[0]
