"""Limits of a GPU's values. A value outside is unknown: it is neither shown nor summed.

Some drivers (WSL, boards without the sensor, other versions) return all ones (4294967295) or zero
for an unknown value. The limits are far above every board.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmtop.engines.core.samples import GpuProcess

MOST_BYTES = 2**46  # 64 TiB
MOST_WATTS = 20_000.0  # a rack's board with several dies draws 3 kW
MOST_JOULES = 1e13  # MOST_WATTS for more than ten years
TEMPERATURES_C = (-40.0, 150.0)
MOST_MHZ = 10_000
MOST_PID = 2**22  # PID_MAX_LIMIT of Linux; 0 and 4294967295 stand for "no process"
_ALL_ONES = (2**32 - 1, 2**64 - 1)


def memory(found: tuple[int, int] | None) -> tuple[int | None, int | None]:
    """Total and used bytes; None for an impossible value: total 0, or used above total."""
    if found is None or not 0 < found[0] <= MOST_BYTES:
        return None, None
    total, used = found
    return total, used if 0 <= used <= total else None


def share(found: float | None) -> float | None:
    """A utilisation, 0..1."""
    return found if found is not None and 0.0 <= found <= 1.0 else None


def watts(found: float | None) -> float | None:
    """A draw."""
    return found if found is not None and 0.0 <= found <= MOST_WATTS else None


def limit_w(found: float | None) -> float | None:
    """A power limit: 0 means none."""
    return found if found is not None and 0.0 < found <= MOST_WATTS else None


def joules(found: float | None) -> float | None:
    """Energy since the driver was loaded."""
    return found if found is not None and 0.0 <= found <= MOST_JOULES else None


def celsius(found: float | None) -> float | None:
    """A temperature."""
    low, high = TEMPERATURES_C
    return found if found is not None and low <= found <= high else None


def megahertz(found: int | None) -> int | None:
    """A clock."""
    return found if found is not None and 0 <= found <= MOST_MHZ else None


def reasons(found: int | None) -> int | None:
    """The reasons for reduced clocks, as bits. All bits set is invalid."""
    return found if found is not None and found >= 0 and found not in _ALL_ONES else None


def processes(
    found: Iterable[GpuProcess] | None, total_bytes: int | None
) -> tuple[GpuProcess, ...]:
    """The processes that hold memory: valid pids only, and at most the total memory each."""
    most = MOST_BYTES if total_bytes is None else total_bytes
    return tuple(
        process
        if process.memory_bytes is None or 0 <= process.memory_bytes <= most
        else GpuProcess(process.pid, None)
        for process in found or ()
        if 0 < process.pid <= MOST_PID
    )
