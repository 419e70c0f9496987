"""Why an engine died: the cause found by pattern in its whole log, in plain words.

The last line is rarely the cause: vLLM's healthy exits end in warnings, and its failed ones in
"see root cause above".
"""

from __future__ import annotations

import re
import signal
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmtop.engines.adapter import FailurePattern
from llmtop.engines.logs import clean

_BEFORE, _AFTER = 2, 3  # lines of context in an excerpt
_LONGEST = 300  # characters of a cause
_LAST_WORDS = 100  # lines: what an engine that ends itself by a signal has just said

READ_THE_LOG = "read the engine's log: llmtop logs NAME"


@dataclass(frozen=True, slots=True)
class Explanation:
    """A cause in plain words, what to try, and the log lines around it, all safe to show."""

    cause: str
    advice: str
    excerpt: tuple[str, ...] = ()


def _any_of(cause: str, advice: str, *patterns: str) -> tuple[FailurePattern, ...]:
    return tuple(FailurePattern(each, cause, advice) for each in patterns)


# What any engine may write. Sources: CPython 3.11 (errno, argparse, pylifecycle), glibc's ld.so,
# PyTorch 2.x (c10/cuda), NCCL 2.x, huggingface_hub's errors, asyncio (base_events), and failed
# starts of vLLM 0.32 and SGLang 0.5. Each begins with plain letters: the regular expression engine
# then skips through a line ten times as fast, and a log may have a million of them.
GENERIC: tuple[FailurePattern, ...] = (
    *_any_of(
        "its port was taken by another process",
        "start it on another port with --port, or end the process that holds this one",
        r"ddress already in use",  # CPython writes a capital, asyncio a small letter
        r"EADDRINUSE",
    ),
    *_any_of(
        "the GPU's memory ran out",
        "see who holds GPU memory, or give the engine a smaller share, context or batch",
        r"CUDA out of memory",
        r"OutOfMemoryError: CUDA",
        r"CUDA error: out of memory",
        r"cudaErrorMemoryAllocation",
    ),
    *_any_of(
        "the NVIDIA driver is older than this engine needs",
        "update the driver, or use an engine built for an older CUDA",
        r"NVIDIA driver on your system is too old",
        r"CUDA driver version is insufficient",
    ),
    *_any_of(
        "it found no usable NVIDIA GPU",
        "check nvidia-smi, --gpus and CUDA_VISIBLE_DEVICES",
        r"No CUDA GPUs are available",
        r"Found no NVIDIA driver",
        r"no CUDA-capable device is detected",
    ),
    *_any_of(
        "the model is gated and access was not granted",
        "accept the model's terms on its page and set HF_TOKEN",
        r"GatedRepoError",
        r"Cannot access gated repo",
        r"Access to model .{1,200} is restricted",
    ),
    *_any_of(
        "the model was found neither as a folder nor by that name on the hub",
        "check the model's path or name",
        r"RepositoryNotFoundError",
        r"is not a local folder and is not a valid model identifier",
        r"Repo id must be in the form",
    ),
    *_any_of(
        "it does not know the argument {flags}",
        "check the spelling and the engine's version",
        r"error: unrecognized arguments: (?P<flags>.{1,200})",
    ),
    *_any_of(
        "it does not take the value of {flag}: {what}",
        "correct the value",
        r"error: argument (?P<flag>[^:]{1,100}): (?P<what>.{1,200})",
    ),
    *_any_of(
        "a disk is full",
        "free space where the engine writes (cache, log, /dev/shm)",
        r"No space left on device",
    ),
    *_any_of(
        "NCCL, the link between GPUs, failed",
        "set NCCL_DEBUG=INFO and start again to see which link",
        r"NCCL (?:error|failure)",
        r"nccl(?:UnhandledCuda|System|Internal)Error",
    ),
    *_any_of(
        "one of its processes was killed, perhaps by the kernel's out-of-memory killer",
        "look into the kernel's log (dmesg) and leave more main memory free",
        r"exit(?:ed|s)? ?(?:with )?(?:exit ?)?code:? -9\b",
        r"died with <?Signals?\.?SIGKILL",
        r"killed by signal 9\b",
    ),
    *_any_of(
        "the main memory ran out",
        "leave more main memory free, or give the engine a smaller share",
        r"^MemoryError\b",
        r"std::bad_alloc",
        r"Cannot allocate memory",
    ),
    *_any_of(
        "it ran out of file handles",
        "raise the limit (ulimit -n) before starting llmtop",
        r"OSError: \[Errno 24\](?! Too many open files`)",  # vLLM warns of it in backquotes
    ),
    *_any_of(
        "this system's C library is too old: {what} is missing",
        "use an engine built for this system, or a newer system",
        r"version `(?P<what>GLIBC\w*_[\d.]+)' not found",
    ),
    *_any_of(
        "its Python environment lacks the module {module}",
        "name the environment that has the engine with --python or --bin",
        r"ModuleNotFoundError: No module named (?P<module>'[^']{1,100}')",
    ),
    *_any_of(
        "Python itself crashed: {what}",
        READ_THE_LOG,
        r"Fatal Python error: (?P<what>.{1,200})",
    ),
)

_TRACEBACK = re.compile(r"Traceback \(most recent call last\):")
# Workers put a tag such as "(EngineCore pid=12) ERROR 01-02 03:04:05 [core.py:9] " before it.
_RAISED = re.compile(
    r"(?:^|\] |\) )(?P<error>[A-Za-z_][\w.]*(?:Error|Exception|Exit|Failed)): (?P<what>\S.*)"
)

_SIGNALS = {
    signal.SIGKILL: (
        "it was killed (signal 9), perhaps by the kernel's out-of-memory killer",
        "look into the kernel's log (dmesg) for 'Out of memory'",
    ),
    signal.SIGTERM: ("somebody ended it (SIGTERM); it was not llmtop", ""),
    signal.SIGINT: ("somebody interrupted it (SIGINT); it was not llmtop", ""),
    signal.SIGHUP: ("it was hung up on (SIGHUP)", ""),
}


def explain(
    lines: Iterable[str],
    patterns: Sequence[FailurePattern] = (),
    exit_code: int | None = None,
    *,
    sudden: bool = False,
) -> Explanation | None:
    """Find the cause in a log; None when neither the log nor the exit code tells.

    patterns: the engine's own, tried before the generic ones over the whole log; the first in the
    table that matches anywhere wins. Then the last error of a traceback, then the exit code.

    When the process itself ended by a signal that is sent from outside, something that it logged
    hours ago is not why, so only its last lines count. They do count: SGLang kills its own process
    tree after it has logged the cause. sudden: it was gone while processes of its own ran on, and
    nobody knows how it ended; then they alone count too.
    """
    sent = by_signal(exit_code)
    if sent is not None or sudden:
        return _in_log(deque(lines, maxlen=_LAST_WORDS), patterns) or sent
    found = _in_log(lines, patterns)
    if found is None and exit_code is not None and exit_code < 0:
        return Explanation(f"it crashed ({_signal_name(-exit_code)})", READ_THE_LOG)
    return found


def _in_log(lines: Iterable[str], patterns: Sequence[FailurePattern]) -> Explanation | None:
    table = (*patterns, *GENERIC)
    searches = [entry.pattern.search for entry in table]
    best = len(table)
    won: re.Match[str] | None = None
    excerpt = _Excerpt()
    raised: re.Match[str] | None = None
    around_raised = _Excerpt()
    in_traceback = False
    before: deque[str] = deque(maxlen=_BEFORE)
    for line in lines:
        excerpt.add(line)
        around_raised.add(line)
        for index in range(best):
            found = searches[index](line)
            if found is not None:
                best, won, excerpt = index, found, _Excerpt(before, line)
                break
        if "Traceback" in line and _TRACEBACK.search(line):
            in_traceback = True
        elif in_traceback and ": " in line and (error := _RAISED.search(line)) is not None:
            raised, around_raised = error, _Excerpt(before, line)
        before.append(line)
    if won is not None:
        entry = table[best]
        return Explanation(_fill(entry.cause, won), _fill(entry.advice, won), excerpt.lines)
    if raised is not None:
        cause = f"it failed with {raised['error'].rpartition('.')[2]}: {raised['what']}"
        return Explanation(cause[:_LONGEST], READ_THE_LOG, around_raised.lines)
    return None


def by_signal(exit_code: int | None) -> Explanation | None:
    """What an exit by a signal that only others send means; None for any other end."""
    for number, (cause, advice) in _SIGNALS.items():
        if exit_code == -number:
            return Explanation(cause, advice)
    return None


class _Excerpt:
    """Lines around a match: those before it are known, those after it come in."""

    def __init__(self, before: Iterable[str] = (), line: str | None = None) -> None:
        self._lines = [*before, line] if line is not None else []
        self._wanted = _AFTER if line is not None else 0

    def add(self, line: str) -> None:
        if self._wanted:
            self._lines.append(line)
            self._wanted -= 1

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(self._lines)


def _fill(words: str, found: re.Match[str]) -> str:
    for name, value in found.groupdict(default="?").items():
        words = words.replace("{" + name + "}", clean(value.strip()))
    return words[:_LONGEST]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
