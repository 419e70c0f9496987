"""Hold on an engine that computes prompts in steps of their own: its streams wait for them."""

from __future__ import annotations

import pytest

from llmtop.engines.core.steps import Step
from llmtop.slo_control.pressure import Pressure, PressureGauge

DECODE_S, PREFILL_S = 0.1, 0.1  # of 16 streams, of one prompt
STREAMS, PROMPT = 16, 64


def step(seq: int, end: float, seconds: float, *, prompt: bool, ended: int = 0) -> Step:
    return Step(
        seq=seq,
        end=end,
        duration_s=seconds,
        requests=1 if prompt else STREAMS,
        prefills=1 if prompt else 0,
        prefill_tokens=PROMPT if prompt else 0,
        decode_tokens=0 if prompt else STREAMS,
        output_tokens=1 if prompt else STREAMS,
        draft_tokens=0,
        accepted_tokens=0,
        running=STREAMS - ended,
        waiting=0,
        kv_free_blocks=None,
        preempted=0,
        context_tokens=None,
        schedule_s=None,
        update_s=None,
        launch_s=None,
        host_gap_s=None,
        idle_s=0.0,
        cached_tokens=0,
        refused=0,
    )


def pressure_of(prompts: int) -> Pressure:
    """Of a full batch of which, after every third step, so many requests end, and as many begin."""
    gauge, now, found = PressureGauge(), 0.0, list[Step]()
    for number in range(60):
        ends = prompts if number % 3 == 2 else 0
        now += DECODE_S
        found.append(step(len(found) + 1, now, DECODE_S, prompt=False, ended=ends))
        for left in range(ends - 1, -1, -1):
            now += PREFILL_S
            found.append(step(len(found) + 1, now, PREFILL_S, prompt=True, ended=left))
    gauge.add(found)
    return gauge.read(now)[0]


@pytest.mark.parametrize("prompts", [2, 7])
def test_a_token_takes_as_long_as_its_stream_waits_for_it(prompts: int) -> None:
    """Of three tokens in a row, one waits for the prompts; their own streams do not."""
    waited = prompts * PREFILL_S * (STREAMS - (prompts + 1) / 2) / STREAMS / 3
    found = pressure_of(prompts)
    assert found.steady_tpot_s == pytest.approx(DECODE_S + waited, rel=0.05)


def test_a_request_costs_the_whole_step_of_its_prompt() -> None:
    costs = pressure_of(7).costs
    assert costs is not None
    assert costs.token_s * PROMPT == pytest.approx(PREFILL_S, rel=0.05)
    mean_s = DECODE_S + 7 * PREFILL_S / 3  # from one decode step to the next
    gap_s = (costs.base_s + STREAMS * costs.each_s) / costs.emitted
    assert gap_s == pytest.approx(mean_s, rel=0.1)
