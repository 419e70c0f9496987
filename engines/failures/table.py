"""Why an engine failed: the first error of its deepest process, in plain words.

The last line is rarely the cause: vLLM's healthy exits end in warnings, and its failed ones in
"see root cause above". Errors are ranked by certainty (``Grade``), then by the depth of the process
(``Depth``), then by position in the log. An effect of another error (``effects``) is reported only
without a cause. An error that its process survived is almost never reported.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from llmtop.engines.core.adapter import FailurePattern, Kind
from llmtop.engines.failures import (
    compiler_causes,
    gpu_causes,
    library_causes,
    machine_causes,
    model_causes,
    parallel_causes,
)
from llmtop.engines.failures import effects as failure_effects
from llmtop.engines.failures.errors import Grade
from llmtop.engines.failures.evidence import Evidence, Suspect, surest
from llmtop.engines.failures.lines import Depth
from llmtop.engines.failures.signals import OUTSIDE, ended_by, signal_name
from llmtop.engines.failures.words import in_own_words, without_type, worded


class Explanation(Struct, frozen=True):
    """A cause in plain words, what to try, and the log lines around it, all safe to print."""

    cause: str
    advice: str
    excerpt: tuple[str, ...] = ()


# Within the text of one error the order matters: specific patterns come before general ones.
GENERAL: tuple[FailurePattern, ...] = (
    *machine_causes.ARGUMENTS,
    *machine_causes.SHARED_MEMORY,
    *machine_causes.DISK,
    *machine_causes.PORTS,
    *machine_causes.RIGHTS,
    *machine_causes.HANDLES,
    *machine_causes.KILLER,
    *compiler_causes.COMPILERS,
    *library_causes.LIBRARIES,
    *gpu_causes.DRIVER,
    *gpu_causes.ABILITY,
    *parallel_causes.RAY,
    *gpu_causes.MEMORY,
    *gpu_causes.FAULTS,
    *machine_causes.MEMORY,
    *model_causes.CODE,
    *model_causes.ARCHITECTURE,
    *model_causes.FILES,
    *model_causes.HUB,
    *model_causes.TOKENIZER,
    *parallel_causes.SPLIT,
    *parallel_causes.NCCL,
    *parallel_causes.TIMEOUTS,
    *library_causes.CRASHES,
    *parallel_causes.OWN_WORDS,
    *compiler_causes.VAGUE,
    *failure_effects.KILLED,
    *failure_effects.DIED,
)


# The usual meaning of these signals if the log reports no reason.
_LIKELY: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        signal.SIGBUS: (
            machine_causes.SHARED_MEMORY[0].cause,
            machine_causes.SHARED_MEMORY[0].advice,
        ),
        signal.SIGILL: (
            "this processor lacks instructions that the program was built for",
            "use a build for this processor; lscpu lists what it has (AVX2, AVX-512)",
        ),
    }
)


def explain(
    lines: Iterable[str],
    patterns: Sequence[FailurePattern] = (),
    exit_code: int | None = None,
    *,
    sudden: bool = False,
    pid: int | None = None,
    words: Mapping[str, str] = MappingProxyType({}),
) -> Explanation | None:
    """Find the cause in a log; None when neither the log nor the exit code shows it.

    patterns: the engine's own, tried before the general ones. sudden: the main process disappeared
    with an unknown exit status while its child processes continued; a server that logged an orderly
    exit does not count. pid: the main process. words: the engine's flags and name, for the advice
    (``words.WORDS``).

    If an external signal ended the process, only an error that ended one of its child processes
    counts. Errors that it survived are not the cause.
    """
    log = Evidence(patterns, GENERAL, lines)
    suspects = log.suspects()
    number = ended_by(exit_code)
    if number in OUTSIDE:
        fatal = [one for one in suspects if one.grade is Grade.FATAL and one.depth >= Depth.CORE]
        return _explanation(_likely(fatal), words) or by_signal(exit_code, words)
    if number == signal.SIGKILL or (sudden and not log.finished(pid)):
        if log.itself:
            return _explanation(_likely(suspects) or _least(suspects), words) or by_signal(
                exit_code, words
            )
        # The exit status is unknown if the process disappeared: then its last lines count.
        least = Grade.FATAL if number == signal.SIGKILL else Grade.UNCAUGHT
        suspects = [one for one in suspects if one.grade >= least or _killer(one)]
        return _explanation(_likely(suspects), words) or by_signal(exit_code, words)
    if exit_code == 0:
        # An error that was only reported did not end it: usually it belongs to one request.
        suspects = [
            one for one in suspects if one.grade is not Grade.REPORTED or one.kind is Kind.EFFECT
        ]
    found = _likely(suspects)
    if found is None and number is not None:
        return by_signal(exit_code, words)
    every = (*suspects, *log.suspects(outlived=True))
    cores = [one for one in _dead_cores(every) if log.before_asked(one)]
    if found is None and log.asked and not cores:
        return Explanation(f"ended by {log.asked}, not by llmtop", "")
    found = found or _least(suspects) or next(iter(cores), None)
    if found is None and exit_code is not None and exit_code != 0:
        fatal = [one for one in log.suspects(outlived=True) if one.grade >= Grade.UNCAUGHT]
        found = _likely(fatal)
    return _explanation(found, words)


def _dead_cores(suspects: Iterable[Suspect]) -> Iterator[Suspect]:
    """The message that an engine core died. A server that lost one ends itself and the others, and
    logs the same lines as after a termination request."""
    for one in suspects:
        if one.entry is not None and one.entry.cause == failure_effects.CORE_DIED:
            yield one


def by_signal(
    exit_code: int | None, words: Mapping[str, str] = MappingProxyType({})
) -> Explanation | None:
    """The meaning of an exit by a signal alone; None for any other exit."""
    number = ended_by(exit_code)
    if number is None:
        return None
    name = signal_name(number)
    if number == signal.SIGKILL:
        return Explanation(
            "killed (SIGKILL), not by llmtop",
            "dmesg shows whether the kernel killed it; else a person or a service did",
        )
    if number in OUTSIDE:
        return Explanation(f"ended by {name}, not by llmtop", "")
    likely, advice = _LIKELY.get(number, ("", ""))
    cause = f"it crashed ({name})" + (f"; likely cause: {likely}" if likely else "")
    read = worded("read its last lines: {log}", words)
    return Explanation(cause, f"{advice}; {read}" if advice else read)


def _of_lines(suspects: Iterable[Suspect]) -> Iterator[Suspect]:
    """Errors that one line identifies: the deepest first, then in the order of the table."""
    yield from sorted(
        suspects,
        key=lambda one: (-one.grade, -one.depth, one.general, one.number * one.general, one.rank),
    )


def _likely(suspects: Sequence[Suspect]) -> Suspect | None:
    """The cause among these; None when all are effects or uncertain."""
    sure = [one for one in suspects if one.grade >= Grade.UNCAUGHT]
    other = [one for one in suspects if one.grade is Grade.REPORTED]
    top = next(surest(one for one in sure if one.known or one.unknown), None)
    if top is not None and top.known:
        return top
    if top is not None:
        # A program that it started, or a child process, reported the cause: prefer that.
        before = [one for one in other if one.number <= top.number]
        tools = [one for one in before if one.known and one.tool]
        below = [one for one in before if one.depth > top.depth and one.kind is Kind.CAUSE]
        return next(_of_lines(tools), None) or next(surest(below), None) or top
    known = [one for one in other if one.known]
    vague = [one for one in (*sure, *other) if one.kind is Kind.VAGUE]
    return next(_of_lines(known), None) or next(surest(vague), None)


def _least(suspects: Sequence[Suspect]) -> Suspect | None:
    """The answer without a known cause: an error's own text, an effect, a minor error."""
    reported = [one for one in suspects if one.unknown and one.grade >= Grade.REPORTED]
    effects = sorted(
        (one for one in suspects if one.kind is Kind.EFFECT),
        key=lambda one: (-one.depth, one.rank, one.number),
    )
    minor = [one for one in suspects if one.grade is Grade.MINOR and one.known]
    killed = [one for one in effects if one.entry in failure_effects.KILLED]
    return (
        next(iter(killed), None)
        or next(surest(reported), None)
        or next(iter([*effects, *minor]), None)
    )


def _killer(one: Suspect) -> bool:
    return one.entry in machine_causes.KILLER


def _explanation(one: Suspect | None, words: Mapping[str, str]) -> Explanation | None:
    if one is None:
        return None
    if one.entry is None or one.found is None:
        cause, advice = in_own_words(one.link)
        return Explanation(cause, worded(advice, words), one.link.excerpt(one.link.lines[0]))
    cause, advice = one.entry.cause, one.entry.advice
    if cause.startswith(machine_causes.API_PORT) and one.depth >= Depth.CORE:
        cause = cause.replace(machine_causes.API_PORT, machine_causes.INTERNAL_PORT)
        advice = machine_causes.INTERNAL_ADVICE
    text = one.found.string
    begin, end = text.rfind("\n", 0, one.found.start()) + 1, text.find("\n", one.found.start())
    line = text[begin : end if end >= 0 else None]
    groups = {**one.found.groupdict(default="?"), "line": without_type(line)}
    return Explanation(
        worded(cause, words, groups), worded(advice, words, groups), one.link.excerpt(line)
    )
