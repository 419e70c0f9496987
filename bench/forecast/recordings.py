"""Recorded steps of a real engine as the steps that llmtop reads.

``kind,t_s,took_us,tokens,prefill_tokens,requests,running,waiting,kv_usage``: S is a call of
``Scheduler.schedule``, U one of ``update_from_output``. Under asynchronous scheduling the S of step
k+1 comes before the U of step k.
"""

import csv
import gzip
from pathlib import Path

from msgspec import convert, structs

from llmtop.engines.core.steps import Step
from llmtop.history.facts import StepsFact
from llmtop.history.recording_reader import Recording

PAUSE_S = 0.6  # nothing ran, or the recorder was off


def read(path: Path, kv_tokens: int) -> list[Step]:
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    planned, ended = ([row for row in rows if row["kind"] == kind] for kind in "SU")

    def same(index: int, offset: int) -> bool:
        place = index + offset
        return 0 <= place < len(planned) and planned[place]["tokens"] == ended[index]["tokens"]

    offset = max(range(-2, 3), key=lambda o: sum(same(i, o) for i in range(len(ended))))
    steps: list[Step] = []
    seq, before = 0, None
    for index, row in enumerate(ended):
        end = float(row["t_s"])
        if not same(index, offset):
            before = None
            seq += 2
            continue
        plan = planned[index + offset]
        requests, tokens = int(plan["requests"]), int(plan["tokens"])
        prefill = tokens - requests if tokens > requests else 0
        begun = float(plan["t_s"])
        if requests == 0 or before is None or end - max(before, begun) > PAUSE_S:
            before = end if requests else None
            seq += 2
            continue
        seq += 1
        steps.append(
            Step(
                seq=seq,
                end=end,
                duration_s=end - before,
                requests=requests,
                prefills=None,
                prefill_tokens=prefill,
                decode_tokens=tokens - prefill,
                output_tokens=None,
                draft_tokens=None,
                accepted_tokens=None,
                running=int(plan["running"]),
                waiting=int(plan["waiting"]),
                kv_free_blocks=None,
                preempted=None,
                context_tokens=round(float(plan["kv_usage"]) * kv_tokens),
                schedule_s=int(plan["took_us"]) / 1e6,
                update_s=int(row["took_us"]) / 1e6,
                launch_s=None,
                host_gap_s=None,
                idle_s=None if begun < before else begun - before,
                cached_tokens=None,
                refused=None,
            )
        )
        before = end
    return steps


def recorded(path: Path) -> list[Step]:
    """The steps of a recording of llmtop, with all columns of the step ring."""
    names = {field.name for field in structs.fields(Step)} - {"seq", "rank", "end"}
    found: list[Step] = []
    seq = 0
    with Recording(path) as recording:
        for fact in recording.facts(kinds={"steps"}):
            if not isinstance(fact, StepsFact):
                continue
            seq += 1 if fact.lost else 0
            columns = {name: fact.columns[name] for name in names if name in fact.columns}
            for index, end in enumerate(fact.columns["end"]):
                seq += 1
                values = {name: values[index] for name, values in columns.items()}
                found.append(
                    convert(
                        {**dict.fromkeys(names), **values, "seq": seq, "rank": fact.rank,
                         "end": fact.time + (end or 0.0)},
                        Step,
                        strict=False,
                    )
                )  # fmt: skip
    return found
