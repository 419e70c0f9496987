"""What was measured with vLLM 0.26 on one H200: settings, loads, figures.

Chat: prompts of 448 to 576 tokens, answers of 112 to 144, prefix caching off. Three sessions:
``tables`` (2026-11-29, tables of that day; each load began at an empty engine), ``levels``
(2026-11-22, closed loops one after the other, from a file of requests), ``overload`` (2026-11-30,
the session of the recording ``h200-overload``, docs/explanation/gpu-results.md).

The level of an open loop is what arrived, where that is known: a Poisson process of 80 a second
brings 74.5 in one run of 18 s and 84 in another. Tokens a second are those of the whole run with
its end, as the load generator counts them.
"""

import gzip
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

PLAN = ((1, 8), (8, 10), (32, 10), (64, 12), (128, 12), (256, 12), (512, 14))


class Point(Struct, frozen=True):
    """whole: tokens a second are of the whole run. steady: the load has been running for a
    while."""

    session: str
    name: str
    batch_limit: int
    token_budget: int
    queue_limit: int
    loop: Literal["open", "closed"]
    level: float
    seconds: float
    measured: Mapping[str, float]
    steady: bool = False


def _point(
    session: str,
    name: str,
    limits: tuple[int, int, int],
    load: tuple[Literal["open", "closed"], float, float],
    figures: str,
) -> Point:
    """figures: ``tok/s p50 p95 …`` in the order of NAMES; "-" where it was not kept."""
    found = {
        key: float(word) for key, word in zip(NAMES, figures.split(), strict=False) if word != "-"
    }
    return Point(session, name, *limits, *load, found)


NAMES = (
    "output_tokens_per_s", "ttft_p50", "ttft_p95", "tpot_p50", "tpot_p95", "itl_p99",
    "goodput_per_s", "refused",
)  # fmt: skip
TABLES = (
    _point("tables", "40/s", (512, 8192, 0), ("open", 40, 10),
           "4624 .102 .196 .0176 .0216 .045"),
    _point("tables", "40/s, budget 2048", (512, 2048, 0), ("open", 40, 10),
           "4637 .110 .198 .0193 .0210 .048"),
    _point("tables", "40/s, budget 1024", (512, 1024, 0), ("open", 40, 10),
           "4639 .162 .391 .0208 .0258 .058"),
    _point("tables", "384 streams, cap 384", (384, 8192, 0), ("closed", 384, 10),
           "5382 1.704 4.682 .0469 .0681 .203"),
    _point("tables", "384 streams, cap 256", (256, 8192, 0), ("closed", 384, 10),
           "6444 2.447 6.409 .0353 .0450 .197"),
    _point("tables", "384 streams, cap 128", (128, 8192, 0), ("closed", 384, 10),
           "5795 5.558 6.665 .0207 .0237 .092"),
    _point("tables", "80/s", (512, 8192, 0), ("open", 74.5, 18),
           "6633 2.4 5.5 - .0759 - 0"),
    _point("tables", "80/s, cap 128", (128, 8192, 0), ("open", 74, 14),
           "5779 3.4 7.3 - .0228 - 13.9"),
    _point("tables", "80/s, cap 256, queue 32", (256, 8192, 32), ("open", 74.5, 18),
           f"6240 .65 1.7 - .0414 - 37.0 {356 / 1341}"),
    _point("tables", "80/s, cap 128, queue 16", (128, 8192, 16), ("open", 74.5, 18),
           f"5562 .32 .90 - .0240 - 46.4 {504 / 1341}"),
    _point("tables", "35/s", (512, 8192, 0), ("open", 33.5, 18),
           "3947 - - - .0174 - 33.5"),
    _point("tables", "35/s, cap 128, queue 16", (128, 8192, 16), ("open", 33.5, 18),
           "3965 - - - .0157 - 33.5"),
)  # fmt: skip
OVERLOAD = (
    _point("overload", "35/s", (512, 8192, 0), ("open", 401 / 12, 12),
           "4012 .0547 .0930 .01051 .01256 .03315 33.4"),
    _point("overload", "80/s", (512, 8192, 0), ("open", 1346 / 16, 16),
           "6838 3.664 6.941 .0680 .0771 .2063 0"),
    _point("overload", "80/s, cap 128, queue 16", (128, 8192, 16), ("open", 1274 / 16, 16),
           f"5971 .3369 .5107 .0201 .0215 .0536 50.6 {465 / 1274}"),
    _point("overload", "512 streams", (512, 8192, 0), ("closed", 512, 9),
           "5953 3.309 6.326 .0592 .0791 .2053"),
)  # fmt: skip


def levels(path: Path) -> tuple[Point, ...]:
    """Closed loops that followed each other: the last three quarters of each."""
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    at = min(row["send"] for row in rows)
    points = []
    for streams, seconds in PLAN:
        begin, end = at + 0.25 * seconds, at + seconds
        at += seconds
        tokens = sum(begin <= moment < end for row in rows for moment in _tokens(row))
        done = [
            row
            for row in rows
            if row["tag"] == streams and begin <= row["send"] + row["last_tok"] < end
        ]
        ttft = [row["ttft"] for row in done]
        tpot = [(row["last_tok"] - row["ttft"]) / (row["tokens"] - 1) for row in done]
        measured = {
            "output_tokens_per_s": tokens / (end - begin),
            "ttft_p50": ranked(ttft, 0.5),
            "ttft_p95": ranked(ttft, 0.95),
            "tpot_p50": ranked(tpot, 0.5),
            "tpot_p95": ranked(tpot, 0.95),
        }
        points.append(
            Point("levels", f"{streams} streams", 1024, 8192, 0, "closed", streams, seconds,
                  measured, steady=True)
        )  # fmt: skip
    return tuple(points)


def _tokens(row: Mapping[str, Any]) -> Iterable[float]:
    if not row.get("ttft"):
        return
    moment = row["send"] + row["ttft"]
    yield moment
    for gap in row["gaps_01ms"]:
        moment += gap / 1e4
        yield moment


def ranked(values: Iterable[float], share: float) -> float:
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered))) - 1] if ordered else math.nan
