"""Why an engine is slow: the causes, their evidence, and the options that would change them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from llmtop.diagnosis.state_rules import Level
from llmtop.engines.core.options import Applies, OptionValue

Evidence = Mapping[str, float | int | str | bool | None]


class Cause(StrEnum):
    """What takes the time of requests. The values are those of ``why --json``."""

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
    """An option that would change a cause. before, after: its present and its proposed value.

    applies: how a change of it takes effect on this engine. expected: the numbers after the change,
    by name with unit (such as ``ttft_s``); {} for unknown.
    """

    option: str
    before: OptionValue
    after: OptionValue
    applies: Applies
    expected: Mapping[str, float] = field(default_factory=dict)
    basis: str = ""  # in words: what the expected values are computed from


class CauseFound(Struct, frozen=True):
    """One cause.

    share: its share of the time from the send of a request to its end, 0..1; None where only its
    presence is known. words: the cause in a short clause. evidence: its numbers by name. details:
    the evidence in words, one clause each. advice: what else helps, "" for nothing known.
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

    time: unix seconds. window_s: the seconds of steps or samples that the shares are computed from.
    steps: their number of steps, 0 without any. missing: numbers that could not be read, with the
    reasons. not_limits: what was checked and is not the limit, one clause each. idle: the engine
    has no requests.
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
