"""Measures the effect of a change, from the engine's own steps and exact latencies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from llmtop.engines.core.options import OptionValue
from llmtop.tui.commands.forecast_requests import EffectQuestion, MeasuredEffect
from llmtop.tui.slo.forecast_facts import ForecastFacts
from llmtop.tui.store.store import Store

if TYPE_CHECKING:
    from llmtop.engines.core.latencies import Latencies, LatencyHistogram

SETTLE_S = 5.0  # after the change, before the window: older requests do not show its effect
WINDOW_S = 10.0
PATIENCE_S = 40.0  # after the change, then the measurement is given up
SAME = 0.1  # relative difference up to which two load levels count as equal


class EffectMeter:
    """Measures the effect of one change.

    Call ``measure`` at each beat until ``over``. since: the time of the change, on the screen's
    clock. over: there is a result, or the measurement was given up.
    """

    def __init__(
        self, store: Store, facts: ForecastFacts, question: EffectQuestion, since: float
    ) -> None:
        self._store, self._facts, self._question, self._since = store, facts, question, since
        self._first: Latencies | None = None
        self._level = self._asked()
        self._others = self._options()
        self.over = False

    def measure(self, now: float) -> MeasuredEffect | None:
        """The result once the window is full; None before that, and without exact latencies."""
        elapsed = now - self._since
        insight = self._facts.insight(self._question.engine)
        latest = insight.latencies if insight is not None else None
        if latest is None or elapsed > PATIENCE_S:
            self.over = elapsed > PATIENCE_S
            return None
        first = self._first
        if first is None or first.boots != latest.boots:
            self._first = latest if elapsed >= SETTLE_S else None
            return None
        seconds = latest.time - first.time
        if seconds < WINDOW_S:
            return None
        self.over = True
        assert insight is not None
        steps = [one for one in insight.history.since(first.time) if one.end <= latest.time]
        tokens = sum(one.output_tokens or one.decode_tokens for one in steps)
        ttft, tpot = _window(first, latest, "ttft"), _window(first, latest, "tpot")
        return MeasuredEffect(
            {
                "output_tokens_per_s": tokens / seconds if steps else None,
                "ttft_p50": ttft.quantile(0.5) if ttft is not None else None,
                "ttft_p95": ttft.quantile(0.95) if ttft is not None else None,
                "tpot_p50": tpot.quantile(0.5) if tpot is not None else None,
                "tpot_p95": tpot.quantile(0.95) if tpot is not None else None,
            },
            self._in_time(ttft, tpot, seconds),
            ttft.count if ttft is not None else 0,
            seconds,
            self._remark(),
        )

    def _in_time(
        self, ttft: LatencyHistogram | None, tpot: LatencyHistogram | None, seconds: float
    ) -> tuple[float, float] | None:
        """Lower and upper bound of the requests a second within the limits.

        The histograms do not show whether two broken limits belong to one request or to two. None
        without histograms, or with a limit of e2e.
        """
        if ttft is None or tpot is None:
            return None
        from llmtop.loadgen.experiments import slo as slos
        from llmtop.operations.slo.outcomes import above

        limits = slos.parse(self._question.slo)
        if limits.e2e is not None:
            return None
        late = above(ttft, limits.ttft), above(tpot, limits.tpot)
        ended = max(ttft.count, tpot.count)
        least, most = max(0, ended - sum(late)), max(0, ended - max(late))
        return least / seconds, most / seconds

    def _remark(self) -> str:
        level = self._asked()
        if (level is None) != (self._level is None):
            return "the load started or stopped meanwhile"
        then = self._level
        if level is not None and then is not None and abs(level - then) > SAME * max(level, then):
            return f"the load changed from {then:,.0f} to {level:,.0f} meanwhile"
        now = self._options()
        other = [name for name, value in now.items() if self._others.get(name) != value]
        return f"{other[0]} changed too" if other else ""

    def _asked(self) -> float | None:
        load = self._store.load
        if load is None or self._store.load_target != self._question.engine:
            return None
        return load.asked if load.running else None

    def _options(self) -> Mapping[str, OptionValue]:
        track = self._store.engines.get(self._question.engine)
        options = track.options if track is not None else ()
        return {one.name: one.value for one in options if one.name != self._question.option}


def _window(first: Latencies, last: Latencies, name: str) -> LatencyHistogram | None:
    now, then = last.histograms.get(name), first.histograms.get(name)
    if now is None:
        return None
    found = now if then is None else now.minus(then)
    return found if found.count else None
