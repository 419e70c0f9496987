"""Measures the bytes of a real engine's scheduler steps in a recording, at 170 steps a second.

    python -m bench.history.step_bytes [RECORDING]

It takes the steps of a recording (by default the example h200-overload, 44 steps a second). It puts
the steps of four seconds into one line, like an engine with four times the rate. It compresses the
lines as a recording does: one flush a second, one member a minute. The example has rounded times,
so random digits are added to them.
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
    """Several facts joined into one, with random digits added to the times."""
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
