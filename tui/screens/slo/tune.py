"""The tune screen: the settings that are tried, the goodput of each, and the verdict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual.binding import BindingType

from llmtop import LlmtopError, UsageError
from llmtop.config.file import Config
from llmtop.loadgen.experiments import slo as slos
from llmtop.operations.slo.tune_runs import TimeLimit
from llmtop.operations.slo.words import tune_sentence
from llmtop.slo_control.search import Verdict
from llmtop.tui.commands.control import Control
from llmtop.tui.commands.experiment_requests import EVERY_ROLE, TunePlan, TuneState
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.plots.form import Field, Form, form_rows
from llmtop.tui.plots.form_values import (
    MOST_SECONDS,
    MOST_STREAMS,
    UNLIMITED,
    length,
    number,
    time_limit,
)
from llmtop.tui.plots.slo.tune_rows import candidate_words, tried_rows
from llmtop.tui.screens.experiment import ExperimentScreen
from llmtop.tui.screens.inside.hold import default_limits
from llmtop.tui.view.page import (
    form_keys,
    keys_row,
    paragraph_rows,
    progress_row,
    running_keys,
    sentence_rows,
    title_row,
    usual_keys,
)
from llmtop.tui.view.view import View
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.row import MUTED, STRONG, Row, Span, fit, shorten
from llmtop.values import replace
from llmtop.wording import format as f
from llmtop.wording.findings import limits
from llmtop.wording.sentences import lengths, remaining

LIMITS, LOAD, UNIT, MAY = "limits", "load", "unit", "may change"
SECONDS, PROMPT, OUTPUT = "seconds a run", "prompt tokens", "output tokens"
MOST_TIME = "time at most"
RATE, STREAMS = "requests/s", "streams"
ROLES = {
    "everything": EVERY_ROLE,
    "limits": ("batch_limit", "queue_limit", "token_budget"),
    "batch and queue": ("batch_limit", "queue_limit"),
    "batch": ("batch_limit",),
    "queue": ("queue_limit",),
    "budget": ("token_budget",),
}
USUAL_RATE = "20"
MOST_RATE = 100_000.0
LEAST_TIME_S = 10.0
HOW = (
    "The first run uses your settings. If 99 % of the requests are in time, there is nothing to "
    "gain. Else a forecast chooses four candidates. In each round, your settings and the "
    "candidates that are left meet the same arrivals, with new prompts. The rounds end when the "
    "difference is certain.",
    "All changes are live. Your settings are restored at the end in every case. The tune keeps "
    "running when you go back to the dashboard.",
)


class TuneScreen(ExperimentScreen):
    """Form, table, verdict and progress of ``Store.tune``. config: has the SLOs with names."""

    NAME = "tune"
    ACTIONS: ClassVar[dict[str, str]] = {
        **ExperimentScreen.ACTIONS,
        "tune.use": "use",
        "tune.back": "back",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(
        self, make_view: Callable[[], View], control: Control, beat_s: float, config: Config
    ) -> None:
        self._config = config
        super().__init__(make_view, control, beat_s)

    def new_form(self, view: View) -> Form:
        """The default limits, and the load that the screen sends now."""
        prompts, load = view.store.prompts, view.load
        running = load is not None and load.running and load.asked >= 1
        streams = running and load is not None and load.loop == "closed"
        usual_limits = default_limits(self._config)
        level = f"{load.asked:.0f}" if running and load is not None else USUAL_RATE
        return Form(
            [
                Field(LIMITS, usual_limits, "of a request: ttft, tpot, e2e; or @NAME"),
                Field(LOAD, level, "of each run: the load that you want to serve"),
                Field(UNIT, STREAMS if streams else RATE, choices=(RATE, STREAMS)),
                Field(MAY, "everything", "everything: also draft length, prefill", tuple(ROLES)),
                Field(SECONDS, "8", "of each run; a tune has one run, or 17 to 34"),
                Field(
                    MOST_TIME, UNLIMITED, "of the tune: 285s, 5m; then what was measured decides"
                ),
                Field(PROMPT, lengths(prompts.prompt_tokens), "a number, or a range: 448..576"),
                Field(OUTPUT, lengths(prompts.output_tokens), "a number, or a range: 112..144"),
            ]
        )

    def shows(self, view: View) -> bool:
        """Whether there is a tune to show."""
        return _state(view) is not None

    def running(self, view: View) -> bool:
        """Whether a tune is running, on any engine."""
        return view.store.tune is not None and not view.store.tune.over

    def most_streams(self) -> int:
        """The load of each run, in streams or requests/s; UsageError if it is not valid."""
        return int(self._level())

    def _level(self) -> float:
        if self.form[UNIT] == STREAMS:
            return float(int(number(self.form, LOAD, 1, MOST_STREAMS)))
        return number(self.form, LOAD, 0.1, MOST_RATE)

    def command(self, view: View) -> Callable[[], Awaitable[None]]:
        """Start a tune of the selected engine; LlmtopError if the form is not valid."""
        engine = view.engine
        if engine is None:
            raise LlmtopError("there is no engine to tune", "start one: llmtop run sim")
        text = self.form[LIMITS]
        slo = slos.of(self._config.slo(text)) if text.startswith("@") else slos.parse(text)
        if not slo.limits:
            raise UsageError("no limits", "such as ttft=1s,tpot=50ms")
        seconds = number(self.form, SECONDS, 2.0, MOST_SECONDS)
        most_s = time_limit(self.form, MOST_TIME, LEAST_TIME_S)
        TimeLimit(most_s).check(seconds)
        plan = TunePlan(
            engine.name,
            slo,
            self._level(),
            self.form[UNIT] == RATE,
            seconds,
            ROLES[self.form[MAY]],
            replace(
                view.store.prompts,
                prompt_tokens=length(self.form, PROMPT),
                output_tokens=length(self.form, OUTPUT),
            ),
            most_s,
        )
        return lambda: self._control.start_tune(plan)

    def action_use(self) -> None:
        """Set the best settings, as the options panel would."""
        view = self._make_view()
        state = _state(view)
        if self.form_open or state is None or not _better(state):
            return
        assert state.report is not None
        engine, settings = state.plan.engine, dict(state.report.settings)

        async def use() -> None:
            for option, value in settings.items():
                change = await self._control.set_option(engine, option, value)
                if change.failed:
                    raise LlmtopError(f"{option} = {value}: {change.reason or 'refused'}")
            words = ", ".join(f"{name} = {value:,}" for name, value in settings.items())
            self.notify(f.clean(f"{engine}: {words}"), markup=False, timeout=6)

        self._act(use)

    def page(self, view: View, width: int, height: int) -> list[Row]:
        """Title, sentence, table or form, launch line, progress, keys."""
        state = _state(view)
        head = [
            title_row(self.NAME, view.engine, _status(state), view, width),
            *sentence_rows(*_sentence(state, view), width, 3, 2),
        ]
        foot = [keys_row(self._keys(state, view), width)]
        if state is not None and not self.form_open:
            foot.insert(0, _progress(state, view, width))
            foot = [*_command_rows(state, width), *foot]
        room = height - len(head) - len(foot)
        if not self.form_open and state is not None:
            return [*head, *self._table(state, view, width, room), *foot]
        form = min(room, len(self.form.fields) + 3)
        how = frame(
            paragraph_rows(HOW, width - 2), width, room - form, view.glyphs, title="how it tunes"
        )
        rows = how if state is None else self._table(state, view, width, room - form)
        return [*head, *rows[: room - form], *self._form(view, width, form), *foot]

    def _table(self, state: TuneState, view: View, width: int, height: int) -> list[Row]:
        plan = state.plan
        body = tried_rows(state, width - 2, height - 2, view.glyphs)
        unit = RATE if plan.is_open else STREAMS
        head: list[Ranked] = [
            (0, [(limits(plan.slo), MUTED)]),
            (1, [(f"{plan.level:g} {unit}", MUTED)]),
            (3, [(f"{f.span(plan.seconds)} a run", MUTED)]),
        ]
        if plan.most_s is not None:
            head.append((2, [(_time_left(state, plan.most_s, view.now), MUTED)]))
        foot: list[Span] = []
        if state.back:
            foot = [(state.back, "good" if "again" in state.back else "bad")]
        return frame(body, width, height, view.glyphs, title="tried", head=head, foot=foot)

    def _form(self, view: View, width: int, height: int) -> list[Row]:
        body = form_rows(self.form, width - 2, height - 2, view.glyphs)
        busy = view.load is not None and view.load.running
        head: list[Ranked] = [(0, [("the running load is stopped first", "warn")] if busy else [])]
        return frame(body, width, height, view.glyphs, title="a tune", head=head, lit=True)

    def _keys(self, state: TuneState | None, view: View) -> list[tuple[str, str]]:
        if self.form_open:
            return form_keys(view)
        if self.running(view):
            return [*running_keys(view), *usual_keys(view)]
        keys = view.keys
        use = [(keys.label("tune.use"), "use these settings")]
        return [
            *(use if state is not None and _better(state) else []),
            (keys.label("experiment.start"), "another tune"),
            (keys.label("experiment.back"), "back"),
            *usual_keys(view),
        ]


def _state(view: View) -> TuneState | None:
    """The tune to show: the one that runs, else the selected engine's last one."""
    state, engine = view.store.tune, view.engine
    if state is None or (state.over and engine is not None and state.plan.engine != engine.name):
        return None
    return state


def _better(state: TuneState) -> bool:
    result = state.report.result if state.report is not None else None
    return result is not None and result.verdict is Verdict.BETTER


def _time_left(state: TuneState, most_s: float, now: float) -> str:
    """How much of the time limit is left; after the tune, the limit alone."""
    limit = f.duration(most_s)
    if state.over:
        return f"limit {limit}"
    return f"{f.duration(state.began + most_s - now)} of {limit} left"


def _status(state: TuneState | None) -> Span:
    if state is None:
        return ("no tune yet", MUTED)
    if not state.over:
        return ("tuning", "load")
    if state.trouble:
        return ("ended early", "bad")
    done = state.report is not None and state.report.result is not None
    return ("done", "good") if done else ("stopped", "warn")


def _sentence(state: TuneState | None, view: View) -> tuple[str, str]:
    if state is None:
        name = f.clean(view.engine.name, 40) if view.engine else "an engine"
        return f"Which settings of {name} serve the most requests within limits?", MUTED
    if state.trouble:
        return f"Ended early: {f.clean(state.trouble)}.", "bad"
    if not state.over:
        return "Each candidate is measured under the same load, with new prompts.", "title"
    assert state.report is not None
    if state.report.result is None:
        return "Stopped before there was a result.", "title"
    words = tune_sentence(state.plan.engine, limits(state.plan.slo), state.report)
    return f.clean(words, 400), "title"


def _progress(state: TuneState, view: View, width: int) -> Row:
    if state.over:
        count = state.runs
        return progress_row([f"{count} run{'' if count == 1 else 's'}"], None, "", view, width)
    words = state.phase or "measuring"
    if state.now is not None and not state.phase:
        words = candidate_words(state.now)
    whole = state.runs + state.left
    share = state.runs / whole if whole and state.left else 0.0
    left = remaining(state.left_s) if state.left_s is not None else ""
    return progress_row([f"run {state.runs + 1}: {words}", words], share, left, view, width)


def _command_rows(state: TuneState, width: int) -> list[Row]:
    """The commands that apply the best settings; [] without any."""
    if not _better(state):
        return []
    assert state.report is not None
    pairs = " ".join(f"{name}={value}" for name, value in state.report.settings.items())
    commands = [("set it now", f"llmtop set {state.plan.engine} {pairs}")]
    commands += [("at each launch", state.launch_line)] if state.launch_line else []
    return [
        fit([(f" {title}: ", MUTED), (shorten(f.clean(words), width - 20), STRONG)], width)
        for title, words in commands
    ]
