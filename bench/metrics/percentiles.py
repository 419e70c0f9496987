"""How often a percentile of an engine's histogram is wrong, on recordings with known answers.

    python bench/metrics/percentiles.py /path/to/traces [out.json]

Each recording holds the metrics page once a second, and what the client of the same load measured
request by request. At each second from the tenth on, the last ten seconds of the page give what is
shown; the requests whose event fell into these seconds give the true value (nearest rank). Windows
with fewer than 20 observations (p99: 100) on either side are left out, for both ways of showing.

before: a number interpolated in its bucket, whatever its width.
after: what is shown now, a number, a range or a bound.
wrong: a number is off by more than a quarter of the true value; of a range, the true value is
outside of it by more than a quarter of itself.
outside: the true value is outside of the range at all, or a number is off by more than a quarter.
The client's TTFT is longer than the engine's, by what the server's front end and the loopback take:
under overload that is 0.6 s here, as the two exact means say. "aligned" moves the client's values
by the difference of the two means of the window before it asks whether they are outside.

The recordings on CPUs have no true values: there the client shared two cores with the engine, and
its mean TTFT is up to fifty times the engine's. Of them it shows the forms alone.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from llmtop.engines.core.samples import BucketHistogram, Latency, Quantile, Reading
from llmtop.engines.metrics.exposition import Parser
from llmtop.engines.metrics.histograms import FEWEST_P95, FEWEST_P99, difference
from llmtop.engines.metrics.window import Window
from llmtop.engines.registry import ADAPTERS

WINDOW_S = 10.0
TOLERANCE = 0.25
SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
FEWEST = {"p50": FEWEST_P95, "p95": FEWEST_P95, "p99": FEWEST_P99}
Events = dict[Latency, list[tuple[float, float]]]  # (unix seconds, seconds)


class Score(Struct):
    """How the windows of one percentile came out. widths: upper end / lower end of the ranges."""

    windows: int = 0
    before_wrong: int = 0
    after_wrong: int = 0
    outside: int = 0
    outside_aligned: int = 0
    forms: Tally[str] = field(default_factory=Tally)
    widths: list[float] = field(default_factory=list)

    def add(self, other: Score) -> None:
        self.windows += other.windows
        self.before_wrong += other.before_wrong
        self.after_wrong += other.after_wrong
        self.outside += other.outside
        self.outside_aligned += other.outside_aligned
        self.forms += other.forms
        self.widths += other.widths


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        for line in file:
            yield json.loads(line)


def readings(kind: str, pages: Sequence[tuple[float, str]]) -> list[Reading]:
    adapter = ADAPTERS[kind]
    parser = Parser(adapter.prefixes)
    return [adapter.read(parser.parse(text), time, time - pages[0][0]) for time, text in pages]


def gpu_pages(folder: Path) -> list[tuple[float, str]]:
    samples = lines(folder / "samples.jsonl.gz")
    return [(one["t"], one["payload"]) for one in samples if one["kind"] == "metrics"]


def gpu_events(folder: Path) -> Events:
    found: Events = {latency: [] for latency in Latency}
    for one in lines(folder / "requests0.jsonl.gz"):
        if not one.get("done"):
            continue
        sent, ttft, e2e = one["send"], one["ttft"], one["e2e"]
        found[Latency.TTFT].append((sent + ttft, ttft))
        found[Latency.E2E].append((sent + e2e, e2e))
        if one["tokens"] > 1:
            last = one.get("last_tok", e2e)
            found[Latency.TPOT].append((sent + last, (last - ttft) / (one["tokens"] - 1)))
        gaps = [gap / 1e4 for gap in one["gaps_01ms"]]
        moments = accumulate(gaps, initial=sent + ttft)
        next(moments)
        found[Latency.ITL] += zip(moments, gaps, strict=True)
    return found


def cpu_pages(path: Path) -> list[tuple[float, str]]:
    return [(one["t"], one.get("text") or one.get("metrics") or "") for one in lines(path)]


def interpolated(hist: BucketHistogram, q: float) -> float | None:
    """What was shown before: a number inside whatever bucket; None in the first and the last."""
    rank = q * hist.counts[-1]
    index = next((i for i, count in enumerate(hist.counts) if count >= rank and count > 0), -1)
    upper = hist.bounds[index]
    if index <= 0 or math.isinf(upper):
        return None
    lower, below = hist.bounds[index - 1], hist.counts[index - 1]
    return lower + (upper - lower) * max(0.0, rank - below) / (hist.counts[index] - below)


def off(shown: float, true: float) -> bool:
    return abs(shown - true) > TOLERANCE * true


def beyond(shown: Quantile, true: float, by: float) -> bool:
    """Whether the true value is outside of what is shown by more than that share of itself."""
    if shown.value is not None:
        return off(shown.value, true)
    high = shown.at_most
    return shown.at_least - true > by * true or (high is not None and true - high > by * true)


def score(one: Score, was: float | None, shown: Quantile, true: float, later: float) -> None:
    """later: by how much the client's values come later than the engine's, in the mean."""
    one.windows += 1
    one.before_wrong += was is not None and off(was, true)
    form = {"=": "number", "-": "range"}.get(shown.relation, "bound")
    one.forms[form] += 1
    if form == "range" and shown.at_most is not None:
        one.widths.append(shown.at_most / shown.at_least)
    one.after_wrong += beyond(shown, true, TOLERANCE)
    one.outside += beyond(shown, true, 0.0)
    one.outside_aligned += beyond(shown, max(true - later, 1e-9), 0.0)


def base_of(read: Sequence[Reading], at: int) -> Reading:
    return min(read[:at], key=lambda old: abs(read[at].elapsed - old.elapsed - WINDOW_S))


def measured(read: Sequence[Reading], events: Events) -> dict[str, Score]:
    window = Window(WINDOW_S)
    found: dict[str, Score] = {}
    for at, reading in enumerate(read):
        sample = window.add(reading)
        if sample.window_s < WINDOW_S - 0.5:
            continue
        base = base_of(read, at)
        for latency, shown in sample.latencies.items():
            start = reading.time - shown.window_s
            true = sorted(v for t, v in events[latency] if start < t <= reading.time)
            between = None
            if latency in base.histograms:
                between = difference(reading.histograms[latency], base.histograms[latency])
            for name, q in SHARES.items():
                quantile: Quantile | None = getattr(shown, name)
                if quantile is None or between is None or len(true) < FEWEST[name]:
                    continue
                if shown.n < FEWEST[name]:
                    continue
                one = found.setdefault(f"{latency.value} {name}", Score())
                rank = max(1, math.ceil(q * len(true) - 1e-9))
                later = sum(true) / len(true) - (shown.mean or 0.0)
                score(one, interpolated(between, q), quantile, true[rank - 1], later)
    return found


def told(read: Sequence[Reading]) -> dict[str, Tally[str]]:
    """Without a client's side: in which form each percentile is shown."""
    window, found = Window(WINDOW_S), dict[str, Tally[str]]()
    for reading in read:
        sample = window.add(reading)
        if sample.window_s < WINDOW_S - 0.5:
            continue
        for latency, shown in sample.latencies.items():
            for name in SHARES:
                quantile: Quantile | None = getattr(shown, name)
                if shown.n:
                    form = {"=": "number", "-": "range"}
                    word = form.get(quantile.relation, "bound") if quantile else "none"
                    found.setdefault(f"{latency.value} {name}", Tally())[word] += 1
    return found


def late(read: Sequence[Reading], latency: Latency) -> tuple[int, int] | None:
    """The most that one window ever counted of a series that appeared late: before, and after."""
    first = next((i for i, one in enumerate(read) if latency in one.histograms), None)
    if not first:
        return None
    window, before, after = Window(1e6), 0.0, 0
    for reading in read:
        found = window.add(reading).latencies.get(latency)
        after = max(after, found.n if found is not None else 0)
    start, end = read[first].histograms[latency], read[-1].histograms[latency]
    before = end.counts[-1] - start.counts[-1]
    return round(before), after


def impossible(read: Sequence[Reading]) -> tuple[int, int, int]:
    """Windows with a p99 of both, and those in which the queue's was longer than TTFT's: before,
    after. A request waits in the queue no longer than until its first token."""
    window, windows, before, after = Window(WINDOW_S), 0, 0, 0
    for at, reading in enumerate(read):
        shown = window.add(reading).latencies
        queue, ttft = shown.get(Latency.QUEUE), shown.get(Latency.TTFT)
        if queue is None or ttft is None or min(queue.n, ttft.n) < FEWEST_P99 or at == 0:
            continue
        base = base_of(read, at).histograms
        if Latency.QUEUE not in base or Latency.TTFT not in base:
            continue
        parts = [
            difference(reading.histograms[one], base[one]) for one in (Latency.QUEUE, Latency.TTFT)
        ]
        was = [interpolated(part, 0.99) if part is not None else None for part in parts]
        windows += 1
        before += was[0] is not None and was[1] is not None and was[0] > was[1]
        if queue.p99 is not None and ttft.p99 is not None and ttft.p99.at_most is not None:
            after += queue.p99.at_least > ttft.p99.at_most
    return windows, before, after


def percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:5.1f} %" if whole else "   -- "


def table(title: str, scores: dict[str, Score]) -> None:
    print(
        f"\n{title}\n{'':10}{'windows':>8} {'before':>8} {'after':>8}"
        f" {'outside':>8} {'aligned':>8}  shown as"
    )
    for name, one in sorted(scores.items()):
        forms = ", ".join(f"{count} {form}" for form, count in one.forms.most_common())
        ratio = sorted(one.widths)[len(one.widths) // 2] if one.widths else None
        wide = f", median range x{ratio:.2f}" if ratio else ""
        shares = [
            percent(count, one.windows)
            for count in (one.before_wrong, one.after_wrong, one.outside, one.outside_aligned)
        ]
        print(f"{name:10}{one.windows:8} {' '.join(s.rjust(8) for s in shares)}  {forms}{wide}")


def plain(scores: dict[str, Score]) -> dict[str, Any]:
    return {
        name: {
            "windows": one.windows,
            "before_wrong": one.before_wrong,
            "after_wrong": one.after_wrong,
            "outside": one.outside,
            "outside_aligned": one.outside_aligned,
            "shown_as": dict(one.forms),
        }
        for name, one in sorted(scores.items())
    }


def main() -> None:
    root = Path(sys.argv[1])
    result: dict[str, Any] = {}
    everything: dict[str, Score] = {}
    for name, kind in (
        ("vllm-h200/A_default", "vllm"),
        ("vllm-h200/B_ngram", "vllm"),
        ("sglang-h200", "sglang"),
    ):
        read = readings(kind, gpu_pages(root / name))
        scores = measured(read, gpu_events(root / name))
        for measure, one in scores.items():
            everything.setdefault(measure, Score()).add(one)
        table(f"{name}, {len(read)} pages", scores)
        result[name] = plain(scores)
        print("  queue p99 > TTFT p99: windows {}, before {}, after {}".format(*impossible(read)))
        print_late(read)
    table("all of these", everything)
    result["all"] = plain(everything)
    for engine, pattern in (("vllm", "[krt]*.jsonl.gz"), ("sglang", "metrics_*.jsonl.gz")):
        for path in sorted((root / f"{engine}-cpu").glob(pattern)):
            if "requests" in path.name:
                continue
            read = readings(engine, cpu_pages(path))
            counted = impossible(read)
            print(f"\n{engine}-cpu/{path.name}, {len(read)} pages, no true values: shown as")
            forms = told(read)
            print("  queue p99 > TTFT p99: windows {}, before {}, after {}".format(*counted))
            for form, tally in sorted(forms.items()):
                print(f"  {form:10} {dict(tally)}")
            result[f"{engine}-cpu/{path.name}"] = {k: dict(v) for k, v in sorted(forms.items())}
            print_late(read)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(result, indent=1) + "\n")


def print_late(read: Sequence[Reading]) -> None:
    for latency in Latency:
        counted = late(read, latency)
        if counted is not None:
            print(
                f"  {latency.value} appeared late: {counted[0]} counted before, {counted[1]} after"
            )


if __name__ == "__main__":
    main()
