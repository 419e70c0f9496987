"""How large the scheduler's steps of a real engine are in a recording, at a given rate.

    python -m bench.history.step_bytes [RECORDING]

Takes the steps of a recording (the example h200-overload: 44 steps a second), puts those of four
seconds into each line, as an engine with four times the rate fills it, and writes them as a
recording does: a line a second, flushed, a member each minute. The seconds get the digits that the
example does not have, by chance.
"""

from __future__ import annotations

import random
import sys
import zlib
from pathlib import Path

from llmtop.history.examples import FOLDER
from llmtop.history.fact_codec import encode
from llmtop.history.facts import StepsFact
from llmtop.history.members import LEVEL
from llmtop.history.recording_reader import Recording
from llmtop.tui.history.step_facts import WRITTEN, rounded

TOGETHER, RATE = 4, 170.0
CHANCE = random.Random(2)


def joined(facts: list[StepsFact], number: int) -> StepsFact:
    """Several lines as one, with the digits that a live recording has."""
    last = facts[-1].time
    columns = {}
    for name in WRITTEN:
        if any(name not in one.columns for one in facts):
            continue
        column: list[float | None] = []
        for one in facts:
            shift = last - one.time if name == "end" else 0.0
            for value in one.columns[name]:
                if value is None:
                    column.append(None)
                elif name == "end":
                    column.append(rounded(name, value - shift + CHANCE.gauss(0, 1e-5), 0.0))
                elif name.endswith("_s"):
                    digits = CHANCE.uniform(-5e-6, 5e-6) if value else 0.0
                    column.append(rounded(name, value + digits, 0.0))
                else:
                    column.append(int(value))
        columns[name] = tuple(column)
    return StepsFact(1e9 + number, facts[0].name, columns)


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "h200-overload.llmtop"
    with Recording(path) as recording:
        facts = [one for one in recording.facts(kinds={"steps"}) if isinstance(one, StepsFact)]
    size = steps = 0
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    for number, at in enumerate(range(0, len(facts), TOGETHER)):
        if number % 60 == 0:
            deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        fact = joined(facts[at : at + TOGETHER], number)
        steps += max(map(len, fact.columns.values()), default=0)
        size += len(deflate.compress(encode(fact))) + len(deflate.flush(zlib.Z_SYNC_FLUSH))
    each = size / steps
    print(f"{steps:,} steps, {steps / (number + 1):.0f} a line, {each:.1f} bytes each;"
          f" {RATE:g} a second: {each * RATE * 3600 / 1e6:.1f} MB an hour")  # fmt: skip


if __name__ == "__main__":
    main()
