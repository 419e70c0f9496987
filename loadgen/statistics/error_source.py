"""Names the source of error that makes up most of a bound."""

from __future__ import annotations

from llmtop.loadgen.core.measures import Bound, Extent, Measure, Sources

STALLED = "answers stayed unread until the server had to wait"
FIRST = "first tokens were read together with later ones"
LAST = "last tokens were read together with the data after them"
TOGETHER = "all tokens of an answer may have been read together"
_TAILS = {"p50": 0.5, "p95": 0.05, "p99": 0.01}  # share of the observations above a quantile
_MUCH_STALLED = 0.01  # of the time in flight


def reason(bound: Bound, sources: Sources) -> str:
    """The reason for this client's error bound of a measure."""
    if sources.void:
        return sources.void
    if bound.measure is Measure.THROUGHPUT:
        return _less_offered(sources)
    if bound.measure is Measure.ATTAINMENT:
        return "this client may have made requests late"
    if bound.moved < bound.error / 2:
        return "the clocks agree to 0.1 ms only"
    extent = sources.extents[bound.measure]
    return _sending(bound, extent, sources) or _reading(bound, extent, sources)


def _sending(bound: Bound, extent: Extent, sources: Sources) -> str:
    """That requests left late, when that is half of the bound or more; else ""."""
    if bound.measure not in (Measure.TTFT, Measure.E2E):
        return ""
    late_s = sources.late_s
    if extent.sent is not None:
        at_once = getattr(extent.sent, bound.quantile)
        late_s = 0.0 if at_once is None or bound.value is None else bound.value - at_once
    if late_s < bound.moved / 2:
        return ""
    if sources.closed:
        return f"this client took up to {late_s * 1000:.1f} ms to send a request"
    return f"requests left up to {late_s * 1000:.1f} ms late"


def _reading(bound: Bound, extent: Extent, sources: Sources) -> str:
    """What of the reading makes up the bound of a latency."""
    if not sources.stamped:
        lag = sources.lag_s * 1000
        return f"without kernel stamps this program takes the times, up to {lag:.1f} ms late (p99)"
    if bound.measure is Measure.ITL:
        return _gaps(bound, extent.unsure)
    if bound.measure is Measure.TTFT:
        return FIRST
    if sources.stalled > _MUCH_STALLED:
        return STALLED
    if bound.value is None or bound.low is None or bound.high is None:
        return TOGETHER
    return FIRST if bound.high - bound.value > bound.value - bound.low else LAST


def _gaps(bound: Bound, unsure: float) -> str:
    words = f"{unsure:.1%} of its tokens were read together with later ones"
    if unsure >= _TAILS[bound.quantile]:
        return words
    # So few tokens move a quantile only by a few ranks. The bound is large because the gaps differ.
    return f"{words}, and {bound.quantile} lies between short gaps and long ones"


def _less_offered(sources: Sources) -> str:
    if sources.closed and sources.turnaround >= sources.stalled:
        return f"streams waited {sources.turnaround:.0%} of their time for this client's next send"
    if sources.stalled:
        return STALLED
    return f"requests left up to {sources.late_s * 1000:.0f} ms late (p99)"
