"""Writes the result of a check for people and for CI: a sentence, Markdown, JUnit XML, JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from llmtop.printable import clean
from llmtop.regression.judgement import MOST_RUNS, Judgement, Verdict
from llmtop.report.comparison import change
from llmtop.wording.format import latency, rate

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def sentence(name: str, verdict: Verdict, judgements: Sequence[Judgement]) -> str:
    """The answer in one sentence."""
    name = clean(name, 80)
    if verdict is Verdict.GOOD:
        held = ", ".join(one.budget.words for one in judgements)
        return f"{name} is as good as the baseline, within {held}."
    if verdict is Verdict.WORSE:
        worse = [one for one in judgements if one.verdict is Verdict.WORSE]
        return f"{name} is worse than the baseline: {', '.join(map(_found, worse))}."
    open_ = [one for one in judgements if one.verdict is Verdict.CANNOT_TELL]
    needed = [one.runs_needed for one in open_]
    known = [one for one in needed if one is not None]
    advice = (
        f"about {max(known)} runs would be enough"
        if known and len(known) == len(needed)
        else f"more than {MOST_RUNS} runs would be needed"
        if any(one.ratio is not None for one in open_)
        else "too few runs count"
    )
    return f"cannot tell whether {name} is as good: {', '.join(map(_found, open_))}; {advice}."


def _found(one: Judgement) -> str:
    if one.ratio is None or one.low is None or one.high is None:
        n = one.new_runs
        return f"{one.budget.measure} has {n} valid run{'' if n == 1 else 's'}"
    return (
        f"{one.budget.measure} {change(one.ratio)} (between {change(one.low)} and"
        f" {change(one.high)}, budget {one.budget.words.partition('=')[2]})"
    )


def _shown(one: Judgement, value: float | None) -> str:
    return rate(value) if one.budget.higher_is_better else latency(value)


def markdown(answer: str, judgements: Sequence[Judgement]) -> str:
    """The answer and a table of the measures as Markdown, for a pull request."""
    from llmtop.report.formats.markdown import plain

    lines = [
        f"**{plain(answer)}**", "",
        "| measure | baseline | now | change | interval | budget | runs | verdict |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]  # fmt: skip
    for one in judgements:
        interval = f"{change(one.low)} to {change(one.high)}" if one.low is not None else "--"
        lines.append(
            f"| {one.budget.measure} | {_shown(one, one.old)} | {_shown(one, one.new)} |"
            f" {change(one.ratio)} | {interval} | {one.budget.words.partition('=')[2]} |"
            f" {one.old_runs} and {one.new_runs} | {one.verdict.value} |"
        )
    return "\n".join(lines) + "\n"


def junit(name: str, judgements: Sequence[Judgement], seconds: float) -> str:
    """JUnit XML with one test case for each measure.

    "Worse" is a failure, "cannot tell" is skipped. name: the engine. seconds: the duration of the
    check.
    """
    suite = Element(
        "testsuite",
        name=_text(f"llmtop check {name}"),
        tests=str(len(judgements)),
        failures=str(sum(one.verdict is Verdict.WORSE for one in judgements)),
        skipped=str(sum(one.verdict is Verdict.CANNOT_TELL for one in judgements)),
        errors="0",
        time=f"{seconds:.1f}",
    )
    for one in judgements:
        case = SubElement(suite, "testcase", classname=_text(name), name=one.budget.words)
        if one.verdict is Verdict.WORSE:
            SubElement(case, "failure", message=_found(one))
        elif one.verdict is Verdict.CANNOT_TELL:
            SubElement(case, "skipped", message=_found(one))
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(suite, encoding="unicode") + "\n"


def _text(words: str) -> str:
    return _NOT_XML.sub("", clean(words, 200))


def entry(one: Judgement) -> dict[str, Any]:
    """The judgement of one measure as a JSON object, for ``check --json``."""
    return {
        "measure": one.budget.measure,
        "budget": one.budget.words,
        "verdict": one.verdict.value,
        "baseline": one.old,
        "now": one.new,
        "ratio": one.ratio,
        "low": one.low,
        "high": one.high,
        "baseline_runs": one.old_runs,
        "runs": one.new_runs,
        "noise_ratio": one.noise,
        "runs_needed": one.runs_needed,
    }
