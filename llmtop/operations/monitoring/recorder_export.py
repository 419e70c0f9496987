"""The request that the recorder also serves metrics: ``export.json`` in the state directory."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
from msgspec import Struct

from llmtop.engines.host.private_files import read_own, write_whole

FILE = "export.json"
LIMIT = 4096  # bytes


class RecorderExport(Struct, frozen=True):
    """The request of `llmtop export --detach`. gpu_hour: price of a GPU hour, None: unknown."""

    host: str
    port: int
    gpu_hour: float | None = None


_decode = msgspec.json.Decoder(RecorderExport).decode


def wanted(root: Path) -> RecorderExport | None:
    """The current request; None if the recorder must serve nothing. root: the state directory."""
    try:
        return _decode(read_own(root / FILE, LIMIT))
    except (OSError, ValueError):
        return None


def want(root: Path, export: RecorderExport) -> None:
    """Write the request. Raises OSError when that fails."""
    write_whole(root / FILE, msgspec.json.encode(export))


def end(root: Path) -> None:
    """Withdraw the request."""
    with contextlib.suppress(FileNotFoundError):
        (root / FILE).unlink()
