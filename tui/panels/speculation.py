"""Speculative decoding: whether it is on, its acceptance rate, and tokens per step."""

from __future__ import annotations

from llmtop.engines.core.options import Applies, Option
from llmtop.engines.core.samples import EngineSample
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.view import View
from llmtop.tui.widgets.frame import Ranked
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Span
from llmtop.wording import format as f

# The names that engines give to the number of draft tokens, and to the drafter.
DRAFTING = ("num_speculative_tokens", "speculative_num_draft_tokens")
METHODS = ("speculative_method", "speculative_algorithm")


def drafted(sample: EngineSample) -> float | None:
    """The mean number of draft tokens per step; None if unknown.

    Formula: (accepted length - 1) / acceptance rate. A step gives one token without any draft.
    """
    if not sample.spec_acceptance or sample.spec_accepted_length is None:
        return None
    return max(0.0, sample.spec_accepted_length - 1) / sample.spec_acceptance


def drafting(engine: EngineTrack | None) -> Option | None:
    """The option for the number of draft tokens; None if there is none."""
    options = engine.options if engine is not None else ()
    return next((option for option in options if option.name in DRAFTING), None)


def speculates(engine: EngineTrack | None) -> bool:
    """Whether it drafts, or can begin without a restart. Then the large screen has its figures."""
    if engine is None:
        return False
    option = drafting(engine)
    armed = option is not None and bool(option.value or option.launch)
    return armed or (engine.sample is not None and engine.sample.spec_acceptance is not None)


def _method(engine: EngineTrack) -> bool:
    """Whether a drafter is set. It may choose the number of draft tokens itself."""
    return any(option.value for option in engine.options if option.name in METHODS)


def state_words(view: View) -> list[Span]:
    """Why there are no figures: off, needs a restart, unknown, or nothing was drafted."""
    engine = view.engine
    option = drafting(engine)
    if engine is None or option is None:
        return [(f.ABSENT, TEXT)]
    if option.value or (option.value is None and _method(engine)):
        return [("on", STRONG), (", nothing drafted in the window", MUTED)]
    if option.value is None and not engine.owned:
        return [("unknown", STRONG), (", this engine does not say", MUTED)]
    if option.applies is Applies.RESTART:
        return [("off", STRONG), (", a restart can arm it", MUTED)]
    return [("off", STRONG), (f", armed for {f.option(option.launch)}: o turns it on", MUTED)]


def figures(view: View) -> list[Ranked]:
    """Acceptance rate, tokens and drafts per step; [] if nothing was drafted in the window."""
    sample = view.sample
    if sample is None or sample.spec_acceptance is None:
        return []
    words: list[Ranked] = [
        (0, [("accepted ", MUTED), (f.percent(sample.spec_acceptance), STRONG)]),
    ]
    length, drafts = sample.spec_accepted_length, drafted(sample)
    if length is not None:
        words.append((1, [(f"{length:.2f}", STRONG), (" tok/step", MUTED)]))
    if drafts is not None:
        words.append((2, [("of ", MUTED), (f"{drafts:.1f}", STRONG), (" drafted", MUTED)]))
    return words


def positions(view: View) -> list[Span]:
    """The acceptance rate at each position of the draft; [] if unknown."""
    sample = view.sample
    shares = sample.spec_acceptance_by_position if sample is not None else ()
    if not shares:
        return []
    percents = " ".join(f"{share * 100:.0f}" for share in shares[:8])
    return [("by position ", MUTED), (percents, STRONG), (" %", MUTED)]
