"""How well the forecast predicts what was measured with vLLM 0.26 on H200s.

    python -m bench.forecast.validate TRACES [--json FILE] [--only NAME]

TRACES: a folder with ``steps/*.csv.gz`` and ``A_default/requests0.jsonl.gz``. Each recording of
steps is left alone with the model in turn: the twin is fitted to it, and predicts the steps of all
other recordings and all measured points (``points.py``). A point that the twin refuses, because it
lies too far from what was seen, is counted as refused.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from bench.forecast.points import OVERLOAD, TABLES, Point, levels, ranked
from bench.forecast.recordings import read, recorded
from llmtop.engines.core.steps import Step
from llmtop.forecast.estimates import NotFitted
from llmtop.forecast.figures import Limits
from llmtop.forecast.fit import Fit, fit
from llmtop.forecast.intervals import Interval, run_draws
from llmtop.forecast.load import FrontEnd, Lengths, Load, Present, Settings
from llmtop.forecast.questions import out_of_range
from llmtop.forecast.step_model import predicted
from llmtop.forecast.twin import Engine, Run, Twin, simulate
from llmtop.history.examples import locate

KV_TOKENS = 919_792
CONTEXT_S = 30.5e-9  # 131,072 bytes a token over 4.3 TB/s
PROMPT, OUTPUT = Lengths.span(448, 576), Lengths.span(112, 144)
SLO = Limits(1.0, 0.05)
PARTS = {  # of the recording h200-overload, seconds after its first step
    "35/s": (0.0, 23.0),
    "80/s": (23.0, 50.0),
    "80/s limited": (50.0, 69.0),
    "35, 80, 35/s held": (69.0, 124.0),
}
OWN = {  # the point that was measured in a part: the twin has seen it
    "35/s": "35/s",
    "80/s": "80/s",
    "80/s limited": "80/s, cap 128, queue 16",
    "35, 80, 35/s held": "",
}


class Told(Struct, frozen=True):
    """One figure: as measured and as expected."""

    point: Point
    figure: str
    measured: float
    expected: Interval

    @property
    def covered(self) -> bool:
        return self.expected.low * 0.999 <= self.measured <= self.expected.high * 1.001

    @property
    def error(self) -> float:
        return abs(self.expected.value / self.measured - 1)


def sources(traces: Path) -> dict[str, list[Step]]:
    found = {
        path.name.removesuffix(".csv.gz"): read(path, KV_TOKENS)
        for path in sorted((traces / "steps").glob("*.csv.gz"))
    }
    steps = recorded(locate("h200-overload"))
    begin = steps[0].end
    for name, (since, until) in PARTS.items():
        found[name] = [step for step in steps if since <= step.end - begin < until]
    return found


def step_errors(found: Fit, steps: Sequence[Step]) -> dict[str, Any]:
    told = list(predicted(found.model, steps))
    errors = [abs(one.seconds / one.step.duration_s - 1) for one in told]
    prefills = [e for e, one in zip(errors, told, strict=True) if one.step.prefill_tokens]
    total = sum(one.step.duration_s for one in told)
    return {
        "steps": len(told),
        "median": ranked(errors, 0.5),
        "p90": ranked(errors, 0.9),
        "prefill_median": ranked(prefills, 0.5),
        "prefills": len(prefills),
        "sum_of_times": sum(one.seconds for one in told) / total - 1 if told else None,
    }


def whole_run(
    engine: Engine,
    settings: Settings,
    load: Load,
    present: Present,
    seed: int,
    *,
    horizon: float,
    warm: float,
) -> Run:
    """A load that begins at an empty engine and drains at its end: all of it counts."""
    twin = Twin(engine, settings, present, load, seed)
    twin.stop_sending = horizon
    twin.advance(5 * horizon)
    ended = [r for r in twin.requests if r.last >= 0]
    last = max((r.last for r in ended), default=horizon)
    scheduler = twin.scheduler
    return Run(
        requests=twin.requests,
        gaps=twin.gaps,
        tokens=sum(r.target for r in ended) * horizon / last,
        begin=warm * horizon,
        horizon=horizon,
        closed=False,
        waiting=0,
        peak_requests=scheduler.peak_requests,
        peak_tokens=scheduler.peak_tokens,
        peak_context=scheduler.peak_context,
        preempted=scheduler.preempted,
        steps=twin.steps,
    )


def expected(found: Fit, point: Point) -> tuple[Mapping[str, Interval], bool]:
    """(figures, whether the question is refused)."""
    settings = Settings(point.batch_limit, point.token_budget, point.queue_limit, KV_TOKENS)
    load = Load(point.loop, point.level, PROMPT, OUTPUT)
    answer = run_draws(
        found, FrontEnd(), settings, load, SLO, None if point.steady else Present(),
        horizon=float(point.seconds), warm=0.25 if point.steady else 0.0,
        run=simulate if point.steady else whole_run,
    )  # fmt: skip
    return answer.intervals(), out_of_range(found.seen, answer.peaks) is not None


def judge(name: str, found: Fit, points: Sequence[Point]) -> tuple[list[Told], int]:
    told, refused = [], 0
    for point in points:
        figures, far = expected(found, point)
        if far:
            refused += 1
            continue
        words = []
        for figure, value in point.measured.items():
            if figure not in figures:
                continue
            one = Told(point, figure, value, figures[figure])
            told.append(one)
            low, high = one.expected.low, one.expected.high
            mark = "" if one.covered else " !"
            words.append(f"{figure} {one.expected.value:.3g} for {value:.3g}"
                         f" [{low:.3g}, {high:.3g}]{mark}")  # fmt: skip
        print(f"  {point.session} {point.name}: " + "  ".join(words))
    return told, refused


def summary(told: Sequence[Told], refused: int) -> dict[str, Any]:
    by_figure: dict[str, list[float]] = {}
    signed: dict[str, list[float]] = {}
    for one in told:
        if one.measured:
            by_figure.setdefault(one.figure, []).append(one.error)
            signed.setdefault(one.figure, []).append(one.expected.value / one.measured - 1)
    rates = [one.expected for one in told if one.figure == "output_tokens_per_s"]
    return {
        "figures": len(told),
        "covered": sum(one.covered for one in told) / len(told) if told else None,
        "refused_points": refused,
        "rate_width": ranked([(i.high - i.low) / i.value for i in rates], 0.5) if rates else None,
        "median_worst_bias": {
            figure: (
                round(ranked(errors, 0.5), 3),
                round(max(errors), 3),
                round(ranked(signed[figure], 0.5), 3),
                len(errors),
            )
            for figure, errors in by_figure.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("traces", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="fit to this recording alone")
    given = parser.parse_args()
    points = (*TABLES, *OVERLOAD, *levels(given.traces / "A_default" / "requests0.jsonl.gz"))
    known = sources(given.traces)
    rows: dict[str, Any] = {}
    everything: list[Told] = []
    same: list[Told] = []
    refusals = 0
    began = time.process_time()
    answers = 0
    for name, steps in known.items():
        if given.only and name != given.only:
            continue
        print(f"== fitted to {name}")
        try:
            found = fit(steps[:600] if name == "chat_256" else steps, CONTEXT_S)
        except NotFitted as error:
            print(f"  refused: {error.reason}")
            rows[name] = {"refused": error.reason}
            continue
        rest = [s for n, s in known.items() if n != name]
        if name == "chat_256":
            rest.append(steps[600:])
        others = [replaced for part in rest for replaced in part]
        apart = [structs.replace(s, rank=i) for i, part in enumerate(rest) for s in part]
        inside = [s for s in apart if not too_far(found, s)]
        told, refused = judge(name, found, points)
        answers += len(points)
        rows[name] = {
            "steps": step_errors(found, inside),
            "steps_beyond": len(others) - len(inside),
            **summary(told, refused),
        }
        print(json.dumps(rows[name]))
        everything += told
        if name in PARTS:
            same += [
                one
                for one in told
                if one.point.session == "overload" and one.point.name != OWN[name]
            ]
        refusals += refused
    print("== of the same session: the parts of h200-overload about its other parts")
    rows["same session"] = summary(same, 0)
    print(json.dumps(rows["same session"], indent=1))
    print("== all")
    rows["all"] = summary(everything, refusals)
    print(json.dumps(rows["all"], indent=1))
    print(f"{(time.process_time() - began) / max(1, answers):.2f} CPU s for an answer")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def too_far(found: Fit, step: Step) -> bool:
    """Whether the twin would refuse to speak of such a step."""
    seen, reach = found.seen, 1.25
    return (
        step.requests > reach * seen.requests
        or step.prefill_tokens + step.decode_tokens > reach * seen.tokens
        or (step.context_tokens or 0) > reach * seen.context
    )


if __name__ == "__main__":
    main()
