"""The charts: TTFT, tokens/s, KV cache, queue, inter-token latency, speculation and requests/s.

A new chart is one more entry of ``CHARTS``.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.analysis.series import SeriesName
from llmtop.diagnosis.state_rules import CAP_FULL, KV_FULL, KV_NEAR
from llmtop.tui.panels import per_token, speculation
from llmtop.tui.panels.charts.chart_panel import ChartKind, Line
from llmtop.tui.panels.charts.latency_heads import pair, ttft_foot, ttft_head
from llmtop.tui.panels.pulse import kv_role
from llmtop.tui.view.view import View
from llmtop.tui.widgets.frame import Ranked, head_room
from llmtop.tui.widgets.row import MUTED, STRONG, Span, join
from llmtop.wording import format as f


def _tokens_head(view: View, room: int) -> Sequence[Ranked]:
    return [
        (0, pair("decode", f.rate(view.value(SeriesName.OUTPUT_TOKENS)), "tokens")),
        (1, pair("prefill", f.rate(view.value(SeriesName.PROMPT_TOKENS)), "prefill")),
        (2, pair("requests", f.rate(view.value(SeriesName.REQUESTS)) + "/s", "requests")),
    ]


def _kv_head(view: View, room: int) -> Sequence[Ranked]:
    sample = view.sample
    share = view.value(SeriesName.KV_USAGE)
    role = kv_role(share)
    head: list[Ranked] = [(0, [(f.percent(share), STRONG if role == "kv" else role)])]
    if sample is None:
        return head
    if sample.kv_tokens_total:
        words = f"{f.short(view.kv_tokens_used)}/{f.short(sample.kv_tokens_total)} tok"
        head.append((1, [(words, "kv")]))
    if sample.prefix_hit_rate is not None:
        head.append((3, [("prefix hit ", MUTED), (f.percent(sample.prefix_hit_rate), STRONG)]))
    if sample.preemptions:
        head.append((2, [("preempted ", "warn"), (f.count(sample.preemptions), STRONG)]))
    return head


def _queue_head(view: View, room: int) -> Sequence[Ranked]:
    cap, limit = view.value(SeriesName.CAP), view.value(SeriesName.QUEUE_LIMIT)
    return [
        (0, pair("running", f.count(view.value(SeriesName.RUNNING)), "running")),
        (1, pair("waiting", f.count(view.value(SeriesName.WAITING)), "waiting")),
        (2, pair("cap", f.count(cap), "cap") if cap is not None else []),
        (3, pair("queue limit", f.count(limit), "cap") if limit else []),
    ]


def _itl_head(view: View, room: int) -> Sequence[Ranked]:
    return per_token.client_itl(view) or per_token.itl(view)


def _itl_foot(view: View, width: int) -> list[Span]:
    """The engine's own p95 if the client's is above; else its mean if that does not fit above."""
    own = per_token.server_itl(view)
    if not own:
        return []
    if per_token.client_itl(view):
        return list(own[0][1])
    mean, room = own[1][1], head_room(width, "inter-token latency")
    return [] if mean[0] in join(per_token.itl(view), room) else list(mean)


def _spec_head(view: View, room: int) -> Sequence[Ranked]:
    return speculation.figures(view) or [(0, speculation.state_words(view))]


def _spec_empty(view: View) -> str:
    return "nothing was drafted in this time"


def _requests_head(view: View, room: int) -> Sequence[Ranked]:
    return [(0, [(f.rate(view.value(SeriesName.REQUESTS)), STRONG), ("/s", MUTED)])]


S = SeriesName
TTFT = ChartKind(
    "TTFT",
    (
        Line(S.TTFT_P95_LOW, "server", upper=S.TTFT_P95_HIGH),
        Line(S.TTFT_MEAN, "server", alone=True),
        Line(S.OLDEST_WAIT, "waiting"),
        Line(S.CLIENT_TTFT_P99, "ttft-high"),
        Line(S.CLIENT_TTFT_P50, "ttft-low"),
        Line(S.CLIENT_TTFT_P95, "ttft"),
    ),
    f.latency,
    ttft_head,
    floor=0.1,
    foot=ttft_foot,
)
TOKENS = ChartKind(
    "tokens/s", (Line(S.OUTPUT_TOKENS, "tokens"),), f.short, _tokens_head, floor=100.0
)
KV = ChartKind(
    "KV cache",
    (Line(S.KV_USAGE, "kv", fill=True, heat=((KV_NEAR, "warn"), (KV_FULL, "hot"))),),
    f.percent,
    _kv_head,
    floor=1.0,
    fixed=True,
    cause="kv",
)
QUEUE = ChartKind(
    "queue",
    (
        Line(S.CAP, "cap", rule=True),
        Line(S.QUEUE_LIMIT, "waiting", rule=True),
        Line(S.RUNNING, "running", heat=((CAP_FULL, "hot"),), limit=S.CAP),
        Line(S.WAITING, "waiting"),
    ),
    f.short,
    _queue_head,
    floor=10.0,
    cause="batch",
)
ITL = ChartKind(
    "inter-token latency",
    (
        Line(S.ITL_P95_LOW, "server", upper=S.ITL_P95_HIGH),
        Line(S.ITL_MEAN, "server", alone=True),
        Line(S.CLIENT_ITL_P95, "itl"),
    ),
    f.latency,
    _itl_head,
    floor=0.02,
    foot=_itl_foot,
)
SPECULATION = ChartKind(
    "speculation",
    (Line(S.SPEC_ACCEPTANCE, "itl"),),
    f.percent,
    _spec_head,
    floor=1.0,
    fixed=True,
    foot=lambda view, width: speculation.positions(view),
    empty=_spec_empty,
)
REQUESTS = ChartKind("requests/s", (Line(S.REQUESTS, "requests"),), f.rate, _requests_head, floor=5)

CHARTS: dict[str, ChartKind] = {
    "ttft": TTFT,
    "tokens": TOKENS,
    "kv": KV,
    "queue": QUEUE,
    "itl": ITL,
    "speculation": SPECULATION,
    "requests": REQUESTS,
}
