"""The results of a saturation search or of a comparison, as sentences."""

from __future__ import annotations

from llmtop.loadgen.experiments.comparison import CompareResult, PairResult
from llmtop.loadgen.experiments.knee import Knee
from llmtop.loadgen.experiments.level import LEAST_REQUESTS, LevelResult
from llmtop.loadgen.experiments.paired_test import Direction, Measure, PairedRatio, Verdict
from llmtop.loadgen.experiments.saturation import SaturationResult
from llmtop.loadgen.experiments.search import MAIN_SHARE, Answer, End
from llmtop.loadgen.experiments.slo import Slo
from llmtop.printable import clean
from llmtop.wording.format import count, latency, rate

NAMES = {
    Measure.OUTPUT_TOKENS: "output tok/s",
    Measure.TTFT_P50: "TTFT p50",
    Measure.TTFT_P95: "TTFT p95",
    Measure.TPOT_P50: "TPOT p50",
}


def limits(slo: Slo) -> str:
    """The limits of an SLO: ``TTFT <= 500ms and TPOT <= 50ms``."""
    names = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "e2e"}
    return " and ".join(f"{names[name]} <= {latency(at)}" for name, at in slo.limits.items())


def streams(number: int) -> str:
    """A number of streams: ``1 stream``, ``64 streams``."""
    return f"{number:,} stream{'' if number == 1 else 's'}"


def answer_words(slo: Slo, answer: Answer, top: int, ceiling: int | None) -> str:
    """The answer of a search for one share of requests, without a final dot.

    top: the highest level of the search. ceiling: the level at which the client could not keep
    up, or None.
    """
    what = f"{limits(slo)} for {answer.share:.0%} of requests"
    if answer.end is End.NEVER:
        return f"Does not hold {what}, not even at {streams(answer.fails or 1)}"
    if answer.level is None:
        if answer.fails is not None:
            return (
                f"Does not hold {what} at {streams(answer.fails)};"
                " below that, too few requests to decide"
            )
        unknown = f"Unknown whether it holds {what}"
        if ceiling is not None:
            return f"{unknown}: this client could not sustain {streams(ceiling)}"
        return f"{unknown}: too few requests at each level"
    words = f"Holds {what} up to {streams(answer.level)}"
    if ceiling is not None and answer.fails is None:
        return (
            f"Holds {what} up to at least {streams(answer.level)};"
            " above that this client is the limit"
        )
    if answer.end is End.BEYOND:
        if answer.level >= top:
            return f"{words}, the highest level that was tried"
        return f"{words}; no higher level failed"
    notes = [f"{answer.level}..{answer.fails}" if answer.fails else f"from {answer.level}"]
    if answer.undecided:
        notes.append("undecided at " + ", ".join(map(str, answer.undecided)))
    if answer.cliff:
        notes.append("a cliff: just above it, fewer than half are in time")
    return f"{words} ({'; '.join(notes)})"


def other_answers(result: SaturationResult) -> list[str]:
    """The answers for the other shares than MAIN_SHARE.

    Unknown answers are left out if that for MAIN_SHARE is unknown too.
    """
    if result.slo is None:
        return []
    main = next((one for one in result.answers if one.share == MAIN_SHARE), None)
    return [
        f"{answer_words(result.slo, one, result.top, result.ceiling)}."
        for one in result.answers
        if one is not main and not (_unknown(one) and main is not None and _unknown(main))
    ]


def _unknown(answer: Answer) -> bool:
    """Whether no level is known to meet the SLO, and none to miss it."""
    return answer.end is not End.NEVER and answer.level is None and answer.fails is None


def knee_words(knee: Knee, ceiling: int | None = None) -> str:
    """The level at which the best throughput starts. ceiling: see ``answer_words``."""
    if knee.open_end and ceiling is not None:
        return (
            f"throughput still rises at {streams(knee.best_level)}, {rate(knee.best)} tok/s;"
            " above that this client is the limit"
        )
    if knee.open_end:
        return f"throughput still rises at {streams(knee.best_level)}, {rate(knee.best)} tok/s"
    bar = f"{knee.low}..{knee.high}" if knee.high is not None else f"above {knee.low}"
    words = f"the best throughput, {rate(knee.best)} tok/s, starts at {streams(knee.level)} ({bar})"
    if knee.cliff is not None and knee.cliff_share is not None:
        words += f" and falls to {knee.cliff_share:.0%} of it at {streams(knee.cliff)}"
    return words


def saturation_sentence(result: SaturationResult) -> str:
    """The whole result of a search in one sentence."""
    parts = []
    main = next((answer for answer in result.answers if answer.share == MAIN_SHARE), None)
    if main is not None and result.slo is not None:
        parts.append(answer_words(result.slo, main, result.top, result.ceiling))
    if result.knee is not None:
        # The first part names the ceiling already.
        parts.append(knee_words(result.knee, None if parts else result.ceiling))
    if not parts and result.ceiling is not None:
        return f"Nothing was found: this client could not sustain {streams(result.ceiling)}."
    if not parts:
        return "Nothing was found: no level could be measured."
    sentence = "; ".join(parts) + "."
    return sentence[0].upper() + sentence[1:]


def level_line(level: LevelResult, slo: Slo | None) -> str:
    """The line of one level, printed when it ends."""
    words = [
        f"{level.level:>6,} {'stream ' if level.level == 1 else 'streams'}",
        f"{rate(level.output_tokens_per_s):>7} tok/s",
        f"TTFT p50 {latency(level.ttft.p50)} p95 {latency(level.ttft.p95)}",
        f"TPOT p50 {latency(level.tpot.p50)}",
    ]
    if slo is not None:
        words.append(f"{level.in_time / level.n:.1%} in time" if level.n else "none in time")
    few = f" ({LEAST_REQUESTS} needed)" if level.n < LEAST_REQUESTS else ""
    words.append(f"n={level.n:,} in {level.seconds:.1f}s{few}")
    if level.refused:
        words.append(f"{level.refused:,} refused")
    if level.failed or level.cut:
        words.append(f"{level.failed + level.cut:,} failed")
    if level.stalled:
        words.append("no request ended")
    elif not level.steady:
        words.append("not a steady state")
    if level.tokens_per_joule is not None:
        words.append(f"{level.tokens_per_joule:.1f} tok/J")
    if not level.valid:
        words.append(f"not used: {clean(level.health.verdict, 200)}")
    return "  ".join(words)


def pair_line(pair: PairResult) -> str:
    """The line of one pair of runs, printed when it ends."""
    runs = [
        f"{arm} {rate(run.output_tokens_per_s)} tok/s, TTFT p50 {latency(run.ttft.p50)}"
        for arm, run in zip(pair.arms, pair.runs, strict=True)
    ]
    words = f"{'noise' if pair.noise else 'pair':<5}  {'   '.join(runs)}"
    if not pair.counted:
        return f"{words}   not counted: {clean(pair.client_bound, 200) or 'no request succeeded'}"
    if left_out := pair.left_out:
        words += f"   not counted for {NAMES[left_out[0]]}: {clean(pair.spoilt(left_out[0]), 200)}"
        words += "".join(f"; nor for {NAMES[one]}" for one in left_out[1:])
    return words


def finding_line(finding: PairedRatio) -> str:
    """The line of one measure of a comparison."""
    name = f"{NAMES[finding.measure]:<13}"
    if finding.ratio is None:
        why = "possibly affected by this client" if finding.left_out else "no pair has a value"
        return f"  {name} cannot tell: {why}"
    tokens = finding.measure.direction is Direction.HIGHER
    a, b = (count(v) if tokens else latency(v) for v in (finding.a, finding.b))
    span = (
        f" ({percent_change(finding.low)} .. {percent_change(finding.high)})"
        if finding.low is not None and finding.high is not None
        else ""
    )
    words = f"  {name} {a} -> {b}  {percent_change(finding.ratio)}{span}  {verdict(finding)}"
    if finding.left_out:
        words += f" (n={finding.n}; {finding.left_out} left out, possibly affected by this client)"
    return words


def verdict(finding: PairedRatio) -> str:
    """``better``, ``worse``, or ``cannot tell`` with the reason."""
    if finding.verdict is not Verdict.CANNOT_TELL:
        return finding.verdict.value
    if finding.more_pairs is not None:
        return f"cannot tell: about {finding.more_pairs} more pairs"
    if finding.low is None or finding.high is None:
        return "cannot tell: too few pairs"
    return "cannot tell: the difference is small compared with the spread of the pairs"


def percent_change(ratio: float | None) -> str:
    """A ratio as a change: ``+12.3%`` for 1.123; ``x12`` for ratios of 10 and more."""
    if ratio is None:
        return "--"
    return f"{ratio - 1:+.1%}" if ratio < 10 else f"x{rate(ratio)}"


def comparison_sentence(result: CompareResult, a: str, b: str) -> str:
    """The whole result of a comparison in one sentence."""
    return comparison_sentences(result, a, b)[0]


def comparison_sentences(result: CompareResult, a: str, b: str) -> list[str]:
    """The result of a comparison in several lengths, the longest first.

    The shorter ones leave out the number of pairs, then the names of A and B, then the last
    findings. They are for places beside the table of the comparison.
    """
    settled = [f for f in result.findings if f.verdict is not Verdict.CANNOT_TELL]
    n = max((finding.n for finding in result.findings), default=0)
    over = f"over {n} pair{'' if n == 1 else 's'} at {streams(result.level)}"
    if not settled:
        return [f"Cannot tell {clean(b)} from {clean(a)} {over}.", f"Cannot tell B from A {over}."]
    parts = [
        f"{f.verdict.value} in {NAMES[f.measure]} ({percent_change(f.ratio)})" for f in settled
    ]
    findings = ", ".join(parts)
    out = [
        f"{clean(b)} is {findings} than {clean(a)}, {over}.",
        f"{clean(b)} is {findings} than {clean(a)}.",
        f"B is {findings} than A.",
    ]
    for kept in range(len(parts) - 1, 0, -1):
        rest = len(parts) - kept
        more = "1 more differs" if rest == 1 else f"{rest} more differ"
        out.append(f"B is {', '.join(parts[:kept])} than A, and {more}.")
    return out


def client_reason(result: SaturationResult) -> str | None:
    """Why the client was the limit, and a remedy; None if it was not."""
    if not result.client_limited:
        return None
    limited = next((one for one in reversed(result.levels) if one.level == result.ceiling), None)
    if limited is None:
        return None
    words = f"At {streams(limited.level)} the client is {clean(limited.health.verdict, 300)}"
    return words + (f". Try {limited.health.remedy}" if limited.health.remedy else "")


def early_end_reason(result: CompareResult) -> str:
    """Why a comparison ended early, as part of a sentence; "" if it did not."""
    if not result.gave_up:
        return ""
    return f"the client was the limit in each of {len(result.pairs)} pairs"


def noise_line(result: CompareResult) -> str | None:
    """The differences between two runs of A; None if they were not measured."""
    known = [
        f"{NAMES[finding.measure]} {finding.noise - 1:.1%}"
        for finding in result.findings
        if finding.noise is not None
    ]
    return f"  A against A differs by: {', '.join(known)}" if known else None
