"""How often `why` names a cause without one: ordinary load on the simulated scheduler.

usage: python -m bench.diagnosis.false_causes [--minutes 60] [--seed 1] [--out RESULT.json]

Virtual time. Requests arrive at random; the rate moves slowly between a tenth and six tenths of
what the engine carries, with a burst of four seconds now and then. The causes are computed once a
second, as the screen does. Prefill and decode are not counted while the state is near the knee or
worse: bursts may bring it there. Printed: causes other than "none", by name, and spells of them.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from pathlib import Path

from llmtop.diagnosis.causes import Cause
from llmtop.diagnosis.explanation import explain
from llmtop.diagnosis.load_state import LoadStates
from llmtop.diagnosis.moments import Moment
from llmtop.diagnosis.observation import Observation
from llmtop.diagnosis.state_rules import Level
from llmtop.diagnosis.step_moments import marginal
from llmtop.diagnosis.steps.history import StepHistory
from llmtop.engines.core.samples import GpuSample
from llmtop.values import replace
from tests.virtual_steps import VirtualEngine

HEALTHY = GpuSample(0.0, 0, "H200", "", sm_clock_mhz=1980, throttle=())
CARRIED = 48.0  # requests a second of these lengths that the virtual H200 carries


def rate_at(now: float) -> float:
    """Requests a second: slow waves, and a burst of four seconds each 97 seconds."""
    wave = 0.35 + 0.25 * math.sin(now / 61.0)
    burst = 1.6 if now % 97.0 < 4.0 else 1.0
    return CARRIED * wave * burst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--noise", type=float, default=0.03, help="of step times, relative")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    engine = VirtualEngine(seqs=256, seed=given.seed)
    noise = random.Random(given.seed)
    history, states = StepHistory(), LoadStates()
    named: Counter[str] = Counter()
    spells: Counter[str] = Counter()
    levels: Counter[str] = Counter()
    before, began = Cause.NONE, time.monotonic()
    for second in range(int(given.minutes * 60)):
        first = len(engine.steps)
        engine.poisson(1.0, 1.0, lambda now: rate_at(now))
        history.extend(
            replace(step, duration_s=step.duration_s * noise.lognormvariate(0.0, given.noise))
            for step in engine.steps[first:]
        )
        now = engine.now
        window = history.window(now)
        fitted = history.fitted(now)
        moment = Moment(
            now,
            running=len(engine.scheduler.running),
            waiting=engine.scheduler.queued,
            cap=engine.scheduler.limits.max_num_seqs,
            kv_usage=engine.kv_usage,
            marginal=marginal(window.steps, fitted) if window is not None else None,
        )
        finding = states.note(moment)
        found = explain(
            Observation(
                now, finding, states.recent, window, fitted, history.slowdown(now),
                kv_usage=engine.kv_usage, kv_blocks=engine.scheduler.pool.total,
                gpus=(HEALTHY,), sm_clock_highest=HEALTHY.sm_clock_mhz,
            )
        )  # fmt: skip
        cause = found.main.cause
        levels[found.level.name] += 1
        usual = cause in (Cause.PREFILL, Cause.DECODE) and found.level >= Level.NEAR_KNEE
        if cause is Cause.NONE or usual:
            cause = Cause.NONE
        else:
            named[cause.value] += 1
            if cause is not before:
                spells[cause.value] += 1
                print(f"{second:6d} s  {cause.value}: {found.main.words}", file=sys.stderr)
        before = cause
        engine.streams.clear()
        if len(engine.steps) > 20_000:
            del engine.steps[:10_000]
    result = {
        "minutes": given.minutes, "seed": given.seed, "seconds_named": dict(named),
        "spells": dict(spells), "levels": dict(levels),
        "took_s": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if given.out is not None:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
