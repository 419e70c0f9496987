"""The memory of a GPU without its own memory: the machine's (GB10, Jetson)."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def machine_memory(meminfo: Path | None = None) -> tuple[int, int] | None:
    """Total and used bytes of the machine's memory; None where Linux does not report them.

    Used is what a new process cannot get: MemTotal - MemAvailable of /proc/meminfo (KiB). Caches
    that the kernel frees on demand count as free, as CUDA counts them on such a GPU.
    """
    try:
        text = (MEMINFO if meminfo is None else meminfo).read_text(errors="replace")
    except OSError:
        return None
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number = rest.split(maxsplit=1)[:1]
        if name in ("MemTotal", "MemAvailable") and number and number[0].isdecimal():
            found[name] = int(number[0]) * 1024
    total, available = found.get("MemTotal", 0), found.get("MemAvailable")
    if total <= 0 or available is None or available > total:
        return None
    return total, total - available
