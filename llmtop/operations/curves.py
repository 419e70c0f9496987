"""Throughput-latency curves of searches, and the store of earlier curves."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from llmtop.engines.core.options import OptionValue
from llmtop.engines.host.private_files import make_private, read_whole, write_whole
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.loadgen.experiments.level import LevelResult

SCHEMA = 1
KEPT = 8  # curves kept for one engine and model; a chart cannot show more distinctly
MOST_BYTES = 256 * 1024
MOST_POINTS = 200


class CurvePoint(Struct, frozen=True):
    """One level. error: relative standard error of the throughput. ttft_p95: seconds.

    valid: the client could keep up, so that the numbers are the engine's.
    """

    level: int
    tokens_per_s: float
    error: float | None
    ttft_p95: float | None
    valid: bool


class Curve(Struct, frozen=True):
    """The measurements of one search. time: unix seconds. kind: of engine. slo: as text, or "".

    prompt, output: lengths in tokens, as text. options: those changed since the launch.
    """

    time: float
    kind: str
    model: str
    points: tuple[CurvePoint, ...] = ()
    slo: str = ""
    prompt: str = ""
    output: str = ""
    options: tuple[tuple[str, OptionValue], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """The key of comparable curves."""
        return self.kind, self.model

    def with_level(self, result: LevelResult) -> Curve:
        """The curve with one more level."""
        point = CurvePoint(
            result.level,
            result.output_tokens_per_s,
            result.error,
            result.ttft.p95,
            result.valid and not result.stalled,
        )
        return replace(self, points=(*self.points, point))

    def differs(self, other: Curve) -> str:
        """The settings of this curve that differ from those of ``other``, as text."""
        mine, theirs = dict(self.options), dict(other.options)
        parts = [f"{name} {value}" for name, value in mine.items() if theirs.get(name) != value]
        parts += [f"{name} as launched" for name in theirs if name not in mine]
        if (self.prompt, self.output) != (other.prompt, other.output):
            parts.append(f"{self.prompt}+{self.output} tokens")
        return ", ".join(parts)


class _CurveFile(msgspec.Struct):
    curve: Curve
    schema: int = SCHEMA


_curve = msgspec.json.Decoder(_CurveFile).decode


class CurveArchive:
    """The private folder of earlier curves, one file per curve, so that writers do not conflict.

    Its methods block: call them in a thread.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, curve: Curve) -> None:
        """Save a curve and remove the oldest of its kind. OSError when it cannot be written."""
        folder = self._folder_of(curve.key)
        folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in (folder.parent, folder):
            if not make_private(part):
                raise PermissionError(None, f"{part} can be accessed by other users")
        name = f"{int(curve.time * 1000):015}.json"
        write_whole(folder / name, msgspec.json.format(msgspec.json.encode(_CurveFile(curve))))
        for old in sorted(folder.glob("*.json"))[:-KEPT]:
            with contextlib.suppress(OSError):
                old.unlink()

    def earlier(self, kind: str, model: str) -> tuple[Curve, ...]:
        """The valid curves of this kind of engine and model, oldest first."""
        found = []
        with contextlib.suppress(OSError):
            for path in sorted(self._folder_of((kind, model)).glob("*.json"))[-KEPT:]:
                curve = _read(path)
                if curve is not None and curve.key == (kind, model):
                    found.append(curve)
        return tuple(found)

    def _folder_of(self, key: tuple[str, str]) -> Path:
        import hashlib  # here, because it loads OpenSSL (4 MiB)

        return self._folder / hashlib.sha256(" ".join(key).encode()).hexdigest()[:16]


def _read(path: Path) -> Curve | None:
    try:
        file = _curve(read_whole(path, MOST_BYTES))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return file.curve if file.schema == SCHEMA and _sound(file.curve.points) else None


def _sound(points: Iterable[CurvePoint]) -> bool:
    """Whether the numbers of a file are in the range that a chart can draw."""
    known = list(points)
    values = [v for p in known for v in (p.tokens_per_s, p.error, p.ttft_p95) if v is not None]
    levels = all(0 < point.level < 10**7 for point in known)
    return len(known) <= MOST_POINTS and levels and all(0 <= v < math.inf for v in values)
