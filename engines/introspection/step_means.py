"""Mean steps of an engine from two readings of its step sums, without a plugin."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.engines.core.steps import StepMeans, StepMoments

FEWEST = 30  # steps for a fit
LEAST_SPREAD = 0.05  # least spread of the requests in a step, as a share of their mean


def between(before: Sequence[StepMoments], after: Sequence[StepMoments]) -> StepMeans | None:
    """The decode steps between two readings; None if the engine restarted in between, or if the
    sums did not change."""
    earlier = {one.rank: one for one in before}
    pairs = [(earlier[one.rank], one) for one in after if one.rank in earlier]
    pairs = [(old, new) for old, new in pairs if new.time > old.time and new.steps >= old.steps]
    if not pairs or len(pairs) < len(after):
        return None

    def grown(name: str) -> float:
        return sum(max(float(getattr(new, name) - getattr(old, name)), 0.0) for old, new in pairs)

    n, requests, seconds = grown("steps"), grown("requests"), grown("seconds")
    base_s, per_request_s = _line(
        n, requests, seconds, grown("requests_squared"), grown("requests_seconds")
    )
    return StepMeans(
        window_s=max(new.time - old.time for old, new in pairs),
        steps=round(n),
        mean_s=seconds / n if n else None,
        mean_requests=requests / n if n else None,
        base_s=base_s,
        per_request_s=per_request_s,
        tokens=round(grown("tokens")),
        prefill_tokens=round(grown("prefill_tokens")),
        prefill_s=grown("prefill_s"),
        ranks=len(pairs),
    )


def _line(
    n: float, x: float, y: float, xx: float, xy: float
) -> tuple[float, float] | tuple[None, None]:
    """Intercept and slope of y over x by least squares."""
    if n < FEWEST or x <= 0:
        return None, None
    variance = xx / n - (x / n) ** 2
    if variance < (LEAST_SPREAD * x / n) ** 2:
        return None, None
    slope = (xy / n - x / n * (y / n)) / variance
    return y / n - slope * x / n, slope
