"""The state line: the engine's state, the reasons, and its name. It is always in the first row."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from llmtop.diagnosis.state_rules import Level
from llmtop.engines.core.records import State
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.condition_words import WORDS, beside, of_numbers, state_of
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import LifecycleView, View
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, join, sides, whole_parts
from llmtop.tui.widgets.row import width as cells
from llmtop.wording import format as f

STATE_ROLE = {
    State.STARTING: "warn",
    State.READY: "good",
    State.UNRESPONSIVE: "bad",
    State.STOPPING: "warn",
    State.STOPPED: MUTED,
    State.FAILED: "bad",
    State.LOST: "bad",
}
LEVEL_ROLE = {
    Level.UNKNOWN: MUTED,
    Level.HEADROOM: "good",
    Level.NEAR_KNEE: "warn",
    Level.SATURATED: "hot",
    Level.OVERLOADED: "bad",
    Level.HUNG: "bad",
}
WORD = 10  # cells of the longest state: a change of state does not move the text after it
PROCESS = 28  # cells that are reserved for the name and the process before the reasons
BADGE = "badge-"  # prefix of roles with a background colour


class Headline(Struct, frozen=True):
    """A state with its colour and its reasons, the most important first."""

    word: str
    role: str
    reasons: tuple[str, ...] = ()


def headline(view: View, engine: EngineTrack) -> Headline:
    """The state of an engine: of its process if it does not serve, else of its load."""
    status = engine.status
    state = status.state if status is not None else State.READY
    role = STATE_ROLE[state]
    if status is not None and state in (State.STARTING, State.STOPPING):
        return Headline(state.value.upper(), role, _phase(view, engine))
    if status is not None and state in (State.STOPPED, State.FAILED, State.LOST):
        cause = status.record.cause or status.phase
        return Headline(state.value.upper(), role, (f.clean(cause, 120),) if cause else ())
    named = state_of(engine.conditions)
    if named is not None and state is not State.UNRESPONSIVE:
        return Headline(WORDS[named.name], "warn", _cleaned(named.message, named.hint))
    if engine.stale_since is not None or state is State.UNRESPONSIVE:
        return Headline("NO ANSWER", "bad", _no_answer_reasons(view, engine))
    found = engine.load_state
    if found is None:
        words = _cleaned(*(one.message for one in engine.conditions))
        return Headline("READY", "good", (*words, "no numbers yet"))
    word = found.level.word if found.level is not Level.UNKNOWN else f.ABSENT
    first, others = of_numbers(engine.conditions), beside(engine.conditions)
    # The cause stands before the option that changes it.
    main = engine.why.main.words if engine.why is not None else ""
    count = 1 + (found.reasons.index(main) if main in found.reasons else 0)
    main_reasons = (*found.reasons[:count], *_option_effect(engine))
    rest = found.reasons[count:]
    reasons = (*_cleaned(*first), *main_reasons, *_cleaned(*others), *rest)
    return Headline(word, LEVEL_ROLE[found.level], reasons)


def _option_effect(engine: EngineTrack) -> tuple[str, ...]:
    """The expected effect of the option of the main cause; () if there is none."""
    if engine.why is None or engine.why.main.knob is None:
        return ()
    from llmtop.diagnosis.explanation import change_words

    return _cleaned(change_words(engine.why))


def _cleaned(*texts: str) -> tuple[str, ...]:
    return tuple(f.clean(text, 120) for text in texts if text)


def _phase(view: View, engine: EngineTrack) -> tuple[str, ...]:
    status = engine.status
    assert status is not None
    since = status.since if status.since is not None else status.record.started_at
    phase = f.clean(status.phase, 60)
    elapsed = f.duration(view.now - since)
    return (phase, f"for {elapsed}") if phase else (f"for {elapsed}",)


def _no_answer_reasons(view: View, engine: EngineTrack) -> tuple[str, ...]:
    why = f.clean(engine.trouble, 80) or "its server does not answer"
    return (why, stale_words(view, engine)) if engine.stale_since is not None else (why,)


def stale_words(view: View, engine: EngineTrack) -> str:
    """The age of its figures, "" while they are fresh."""
    since = engine.stale_since
    return f"stale {f.duration(view.now - since)}" if since is not None else ""


def badge(head: Headline) -> Span:
    """The word of the state on its colour, with a constant width."""
    return (f" {head.word.ljust(WORD)} ", BADGE + head.role)


def state_spans(engine: EngineTrack, view: View) -> list[Span]:
    """The process with its glyph and age: ``● ready 1h12m``."""
    glyphs = view.glyphs
    status = engine.status
    if status is None:
        state, since = "attached", None
        role = "good" if engine.stale_since is None else MUTED
    else:
        state, since, role = status.state.value, status.since, STATE_ROLE[status.state]
    glyph = glyphs.bullet if role in ("good", "warn") else glyphs.hollow
    spans: list[Span] = [(f"{glyph} {state}", role)]
    if since is not None:
        spans.append((f" {f.duration(view.now - since)}", MUTED))
    return spans


class StatePanel(Panel):
    """One row, the first of the screen."""

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """The badge and its reasons; at the right the engine, as far as it fits."""
        engine = view.engine
        if engine is None:
            return [fit([], width)]
        head = headline(view, engine)
        first = badge(head)
        room = width - cells([first]) - 1
        least = 0 if width < 100 else PROCESS + (15 if view.low_bandwidth else 0)
        name = _identity(view, engine, least, width)
        hint = _hint(view, engine)
        reasons = _reasons(head, view, max(0, room - cells(name) - cells(hint) - 2))
        reasons = [*reasons, *hint]
        right = _identity(view, engine, max(0, room - cells(reasons) - 2), width)
        return [sides([first, (" ", TEXT), *reasons], right, width)]


def _hint(view: View, engine: EngineTrack) -> list[Span]:
    """The key that shows the evidence, if there is any; in overload also the key of a hold."""
    if engine.why is None or engine.why.idle:
        return []
    hint: list[Span] = [("  ", TEXT), (view.keys.label("why"), "key"), (" why", MUTED)]
    overloaded = engine.load_state is not None and engine.load_state.level is Level.OVERLOADED
    if overloaded and engine.owned and engine.hold is None and not view.readonly:
        hint += [("  ", TEXT), (view.keys.label("engine.hold"), "key"), (" hold", MUTED)]
    return hint


def _reasons(head: Headline, view: View, room: int) -> list[Span]:
    """The reasons that fit as a whole; else the first parts of the first one."""
    role = STRONG if head.role in ("hot", "bad") else TEXT
    dot = f" {view.glyphs.dot} "
    fitting: list[str] = []
    for reason in head.reasons:
        if len(dot.join([*fitting, reason])) > room:
            break
        fitting.append(reason)
    if not fitting and head.reasons:
        return [(whole_parts(head.reasons[0], room), role)]
    spans: list[Span] = []
    for number, reason in enumerate(fitting):
        spans += [(dot, MUTED), (reason, TEXT)] if number else [(reason, role)]
    return spans


def _identity(view: View, engine: EngineTrack, room: int, width: int) -> list[Span]:
    """The engine's name, its details, and its process, as far as they fit."""
    names = _names(engine, view)
    process = state_spans(engine, view)
    words: list[tuple[int, Sequence[Span]]] = [*names, (2, process)]
    if view.low_bandwidth:
        words.append((2, [("low bandwidth", MUTED)]))
    if width >= 100:
        words.append((8, [(f"every {f.span(view.interval)}", MUTED)]))
    kept = join(words, max(room - 1, cells(names[0][1])))
    return [*kept, (" ", TEXT)]


def _names(engine: EngineTrack, view: View) -> list[tuple[int, list[Span]]]:
    title = f.clean(engine.title or engine.kind, 30)
    version = f.clean(engine.version or "", 16)
    where = f.clean(engine.url, 60).removeprefix("http://").removeprefix("https://")
    where = ":" + where.rpartition(":")[2] if where.startswith(("127.", "localhost")) else where
    model = f.clean(engine.model or "", 40).rpartition("/")[2]
    words: list[tuple[int, list[Span]]] = [(0, [(f.clean(engine.name, 24), STRONG)])]
    if engine.hold is not None:
        words[0][1].append((" held", "warn" if engine.hold.words else "mark"))
    if engine.simulated:
        words.append((1, [("simulated", "warn")]))
    if model and view.stage is not LifecycleView.EMPTY:
        words.append((4, [(model, TEXT)]))
    if title and title != engine.name:
        words.append((7, [(f"{title} {version}".strip(), MUTED)]))
    words.append((6, [(where, MUTED)]))
    if view.readonly:
        words.append((3, [("from Prometheus" if view.elsewhere else "read-only", "warn")]))
    return words
