"""An engine with steps, requests and causes, as a screen shows it."""

from __future__ import annotations

from functools import cache

from llmtop.diagnosis.explanation import with_reasons
from llmtop.diagnosis.state_rules import Level, LoadState
from llmtop.engines.core.requests import RequestRow, RequestTable
from llmtop.engines.core.samples import EngineSample
from llmtop.engines.core.steps import Step, Steps
from llmtop.operations.insight.engine_insight import EngineInsight
from llmtop.operations.slo.holders import HolderState
from llmtop.tui.store.store import EngineTrack, Store
from llmtop.values import replace
from tests.fake_control import FakeControl
from tests.virtual_steps import VirtualEngine

HELD = HolderState(
    4711,
    "ann@pts/3",
    "ttft=1s,tpot=50ms",
    0.0,
    0.0,
    {"max_num_seqs": 256, "max_queued_requests": 0},
    {"max_num_seqs": 64, "max_queued_requests": 16},
    True,
    2,
    True,
)


def rows() -> tuple[RequestRow, ...]:
    """Twelve requests in all their states."""
    found = []
    for number in range(12):
        waits = number >= 10
        decodes = number < 9
        found.append(
            RequestRow(
                id=f"cmpl-{number:04d}",
                rank=0,
                state="waiting" if waits else "running",
                phase=None if waits else "decode" if decodes else "prefill",
                age_s=12.4 - number,
                waited_s=0.3,
                ttft_s=0.41 if decodes else None,
                prompt_tokens=1813 + number,
                cached_tokens=0,
                generated_tokens=97 - number,
                max_tokens=128,
                kv_blocks=None if waits else 120 - number,
                preemptions=int(number == 3),
                priority=None,
            )
        )
    return tuple(found)


@cache
def _pressed(now: float) -> tuple[Step, ...]:
    """9 seconds of an engine that reaches its batch limit of 16. To compute them takes 0.1 s."""
    engine = VirtualEngine(seqs=16)
    for level in (4, 8, 12):
        engine.hold(level, 1.0)
    engine.hold(48, 6.0)
    shift = now - engine.now
    return tuple(replace(step, end=step.end + shift) for step in engine.steps)


def inside(store: Store, control: FakeControl, now: float) -> EngineTrack:
    """The store's engine at its batch limit of 16, with its last 9 seconds of steps."""
    insight = EngineInsight(None, lambda: now)
    insight.missing = {}
    insight.history.add(Steps(_pressed(now), 0, 1, time=now))
    track = store.engines["llama"]
    cap = track.options[0]
    track.options = (replace(cap, value=16), *track.options[1:])
    track.sample = EngineSample(
        now, 1.0, running=16, waiting=32, kv_usage=0.1, requests_per_s=12.0, output_tokens_per_s=2e3
    )
    finding = LoadState(Level.SATURATED, ("batch limit 16 reached, 32 waiting",), limits=("batch",))
    track.why = insight.explain(finding, (), track.sample, track.options)
    track.load_state = with_reasons(finding, track.why)
    track.why_since, track.steps = now - 72, insight.history
    store.load, store.load_target = None, None
    control.table = RequestTable(now, 128, 62, rows(), 4711)
    return track
