"""Whether the recorder serves metrics too, and where: ``export.json`` in the state directory."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from msgspec import Struct

from llmtop.engines.host.private_files import read_own, write_whole

FILE = "export.json"
LIMIT = 4096


class RecorderExport(Struct, frozen=True):
    """What `llmtop export --detach` asked for. gpu_hour: price of a GPU hour, None: not known."""

    host: str
    port: int
    gpu_hour: float | None = None


_decode = msgspec.json.Decoder(RecorderExport).decode


def wanted(root: Path) -> RecorderExport | None:
    """What the recorder is to do; None where it is to serve nothing. root: the state directory."""
    try:
        return _decode(read_own(root / FILE, LIMIT))
    except (OSError, ValueError):
        return None


def want(root: Path, export: RecorderExport) -> None:
    """Ask for it. OSError where that cannot be written."""
    write_whole(root / FILE, msgspec.json.encode(export))


def end(root: Path) -> None:
    """Withdraw the request."""
    with contextlib.suppress(FileNotFoundError):
        (root / FILE).unlink()
