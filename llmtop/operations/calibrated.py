"""The load that this machine can send as a client: measured if unknown, else read from a file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llmtop import LlmtopError
from llmtop.engines.host.private_files import read_whole, write_whole
from llmtop.loadgen.core.client_capacity import RATE, Calibration
from llmtop.loadgen.experiments.calibration import calibrate, machine_load
from llmtop.loadgen.workers.load import default_workers

KEPT_S = 3600.0  # validity of a stored value: power supply or CPU governor may change
BUSIER = 0.5  # more runnable processes per core than this invalidate the stored value
FILE = "calibration.json"  # in the state folder
FILE_BYTES = 2**16


class _Kept(msgspec.Struct):
    boot: str
    found: list[Calibration]


_kept = msgspec.json.Decoder(_Kept).decode


def calibrated(
    folder: Path,
    boot: str,
    workers: int | None = None,
    *,
    recalibrate: bool = False,
    on_left: Callable[[float], None] = lambda left_s: None,
    clock: Callable[[], float] = time.time,
    measure: Callable[..., Calibration] = calibrate,
    load: Callable[[], float] = machine_load,
) -> tuple[Calibration, bool]:
    """The calibration for this number of workers, and whether it came from the file.

    folder: the state folder, with ``calibration.json``. boot: id of this boot of the machine.
    recalibrate: measure in any case. on_left: receives the seconds left. load: runnable processes
    per core. Errors of reading or writing the file are ignored. Raises LlmtopError as ``calibrate``
    does.
    """
    count = _count(workers)
    if (
        not recalibrate
        and (one := remembered(folder, boot, count, clock=clock, load=load)) is not None
    ):
        return one, True
    found = measure(count, on_left=on_left)
    others = [one for one in _known(folder, boot) if one.workers != count]
    with contextlib.suppress(OSError, LlmtopError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(folder / FILE, msgspec.json.encode(_Kept(boot, [*others, found])))
    return found, False


def remembered(
    folder: Path,
    boot: str,
    workers: int | None = None,
    *,
    clock: Callable[[], float] = time.time,
    load: Callable[[], float] = machine_load,
) -> Calibration | None:
    """The stored calibration for this number of workers; None when there is none of the last hour,
    or the machine is much busier now. It measures nothing."""
    for one in _known(folder, boot):
        fresh = 0 <= clock() - one.at < KEPT_S
        if one.workers == _count(workers) and fresh and load() - one.load < BUSIER:
            return one
    return None


def calibration_words(found: Calibration) -> str:
    """``this client can sustain about 48,000 chunks/s here: 960 streams of 50 tok/s``."""
    workers = f"{found.workers} worker{'' if found.workers == 1 else 's'}"
    about = float(f"{found.chunks_per_s:.2g}")
    streams = int(about / RATE)
    words = (
        f"this client can sustain about {about:,.0f} chunks/s here ("
        f"{streams:,} streams of 50 tok/s; {workers}, {found.us_per_chunk:.0f} us of CPU a chunk)"
    )
    if found.waited > 0.25:
        words += f"; the machine is busy: it waited for a core {found.waited:.0%} of the time"
    return words


def _count(workers: int | None) -> int:
    return default_workers() if workers is None else max(1, workers)


def _known(folder: Path, boot: str) -> list[Calibration]:
    kept = _read(folder / FILE)
    return kept.found if kept is not None and boot and kept.boot == boot else []


def _read(path: Path) -> _Kept | None:
    try:
        return _kept(read_whole(path, FILE_BYTES))
    except (OSError, LlmtopError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
