"""Detects prompts that an engine has received before, because its prefix cache shortens their
TTFT."""

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
MOST = 500  # runs in the file
KEPT_S = 7 * 86_400.0  # longer than a cache keeps entries
LEAST_FOUND = 0.01  # share of cached prompt tokens from which a report says that a cache finds them
TWICE = 2.0  # sends per prompt from which a report states that number


class Repeats(msgspec.Struct, frozen=True):
    """The repeated prompts of a run.

    what: the seed or the dataset, for a sentence. before_s: seconds since the same prompts were
    last sent to this engine; None: never, as far as the file shows. prompts: number of different
    prompts in the dataset; None: generated prompts. requests: number of first turns sent. cached:
    share of prompt tokens that the engine found in its cache, 0..1; None: unknown.
    """

    what: str
    before_s: float | None = None
    prompts: int | None = None
    requests: int = 0
    cached: float | None = None

    @property
    def times(self) -> float | None:
        """Mean number of sends per prompt of a dataset; None for generated prompts."""
        return self.requests / self.prompts if self.prompts else None


def repeat_words(found: Repeats) -> list[str]:
    """Describe the repetitions, one line each. Empty when nothing was repeated."""
    cached, finds = "", "finds"
    if found.cached is not None:
        cached = f" (cached {percent(found.cached)} of prompt tokens)"
        # Prompts may be too short for a cache block.
        finds = "finds" if found.cached >= LEAST_FOUND else "may find"
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
    """Identify the prompts of a run: as text for a sentence, and as a key.

    The key has no lengths: prompts of one seed have the same beginning at any length.
    """
    if prompts.dataset:
        return f"this dataset ({Path(prompts.dataset).name})", f"dataset {prompts.dataset}"
    kind = "chat" if prompts.as_chat else "text" if prompts.text else "ids"
    key = f"seed {seed} {kind} {prompts.shared_prefix_tokens} {int(prompts.repetitive)}"
    return f"seed {seed}", key


def repeats_of(
    what: str, before_s: float | None, result: LoadResult, engine_share: float | None
) -> Repeats:
    """The repetitions of a run. engine_share: cached share of prompt tokens by the engine's
    counters, used if the responses do not report it."""
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
    """Stores which prompts each engine has received. folder: the state folder.

    Errors of reading or writing are ignored; then nothing is stored.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock

    def before_s(self, engine: str, prompts: str) -> float | None:
        """Seconds since the engine received these prompts; None: never, as far as is stored."""
        now = self._clock()
        known = [run.at for run in self._read() if (run.engine, run.prompts) == (engine, prompts)]
        ages = [now - at for at in known if 0 <= now - at < KEPT_S]
        return min(ages, default=None)

    def add(self, engine: str, prompts: str) -> None:
        """Store that the engine has received these prompts now."""
        now = self._clock()
        kept = [run for run in self._read() if 0 <= now - run.at < KEPT_S]
        kept = [run for run in kept if (run.engine, run.prompts) != (engine, prompts)]
        content = msgspec.json.encode([*kept[1 - MOST :], _Run(engine, prompts, now)])
        with contextlib.suppress(OSError, LlmtopError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._folder / FILE, content)

    def _read(self) -> list[_Run]:
        try:
            return _runs(read_own(self._folder / FILE, FILE_BYTES))
        except (OSError, LlmtopError, msgspec.MsgspecError, UnicodeDecodeError):
            return []
