"""Detects prompts that an engine has received before: its prefix cache shortens their TTFT."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llmtop import LlmtopError
from llmtop.engines.host.private_files import read_own, write_whole
from llmtop.loadgen.core.results import LoadResult
from llmtop.loadgen.workload.plan import Prompts
from llmtop.wording.format import duration, percent

FILE = "seeds.json"  # in the state folder
FILE_BYTES = 2**18
MOST = 500  # runs that are remembered
KEPT_S = 7 * 86_400.0  # no cache is that old
LEAST_FOUND = 0.01  # of the prompt tokens, from which on a cache is said to find them
TWICE = 2.0  # times that a prompt was sent, from which on it is said in so many words


class Repeats(msgspec.Struct, frozen=True):
    """What was repeated in a run.

    before_s: how long ago the same prompts were sent to this engine; None: not by what is
    remembered. what: the seed or the dataset, for a sentence. prompts: different ones in the
    dataset; None: they were made. requests: that were not a later turn. cached: share of the
    prompt tokens that the engine found in its cache; None: unknown.
    """

    what: str
    before_s: float | None = None
    prompts: int | None = None
    requests: int = 0
    cached: float | None = None

    @property
    def times(self) -> float | None:
        """How often each prompt of a dataset was sent, on average; None where they were made."""
        return self.requests / self.prompts if self.prompts else None


def repeat_words(found: Repeats) -> list[str]:
    """What is to be said of it, a line each."""
    cached, finds = "", "finds"
    if found.cached is not None:
        cached = f" (cached {percent(found.cached)} of prompt tokens)"
        finds = "finds" if found.cached >= LEAST_FOUND else "may find"  # they may be too short
    lines = []
    times, prompts = found.times, found.prompts
    if times is not None and prompts is not None and times >= TWICE:
        each = "the one prompt" if prompts == 1 else f"each of {prompts:,} prompts"
        lines.append(f"{each} was sent {times:,.0f} times: a prefix cache {finds} them{cached}")
    elif prompts is not None and found.requests > prompts:
        again = found.requests - prompts
        lines.append(
            f"{again:,} of {found.requests:,} requests repeated a prompt: a prefix cache"
            f" {finds} them{cached}"
        )
    if found.before_s is not None:
        lines.append(
            f"{found.what} was sent to this engine {duration(found.before_s)} ago: a prefix cache"
            f" {finds} its prompts{'' if lines else cached}"
        )
    return lines


def named(prompts: Prompts, seed: int) -> tuple[str, str]:
    """What distinguishes the prompts of two runs: for a sentence, and as a key.

    Lengths are not in it: prompts of one seed begin alike, however long they are.
    """
    if prompts.dataset:
        return f"this dataset ({Path(prompts.dataset).name})", f"dataset {prompts.dataset}"
    kind = "chat" if prompts.as_chat else "text" if prompts.text else "ids"
    key = f"seed {seed} {kind} {prompts.shared_prefix_tokens} {int(prompts.repetitive)}"
    return f"seed {seed}", key


def repeats_of(
    what: str, before_s: float | None, result: LoadResult, engine_share: float | None
) -> Repeats:
    """A run's. engine_share: of the prompt tokens, by the engine's own counters."""
    cached = engine_share
    if result.cached_tokens is not None and result.prompt_tokens:
        cached = result.cached_tokens / result.prompt_tokens
    return Repeats(what, before_s, result.prompts, result.begun, cached)


class _Run(msgspec.Struct, array_like=True):
    engine: str
    prompts: str
    at: float


_runs = msgspec.json.Decoder(list[_Run]).decode


class SeedBook:
    """Remembers which prompts an engine was sent. folder: the state folder.

    What cannot be read or written is no reason to fail: then nothing is remembered.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock

    def before_s(self, engine: str, prompts: str) -> float | None:
        """How long ago the engine was sent these prompts; None: not that is remembered."""
        now = self._clock()
        known = [run.at for run in self._read() if (run.engine, run.prompts) == (engine, prompts)]
        ages = [now - at for at in known if 0 <= now - at < KEPT_S]
        return min(ages, default=None)

    def add(self, engine: str, prompts: str) -> None:
        """The engine was sent these prompts just now."""
        now = self._clock()
        kept = [run for run in self._read() if 0 <= now - run.at < KEPT_S]
        kept = [run for run in kept if (run.engine, run.prompts) != (engine, prompts)]
        made = msgspec.json.encode([*kept[1 - MOST :], _Run(engine, prompts, now)])
        with contextlib.suppress(OSError, LlmtopError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._folder / FILE, made)

    def _read(self) -> list[_Run]:
        try:
            return _runs(read_own(self._folder / FILE, FILE_BYTES))
        except (OSError, LlmtopError, msgspec.MsgspecError, UnicodeDecodeError):
            return []
