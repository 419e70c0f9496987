"""A kernel module and a driver library of different versions: which versions, and the remedy.

The reason is an update of the driver while the old module is loaded, or a container with its own
library. Until it is repaired, every CUDA program fails.
"""

from __future__ import annotations

import re
from pathlib import Path

MODULE = Path("/proc/driver/nvidia/version")
MAPS = Path("/proc/self/maps")
REMEDY = (
    "reboot, or end what uses the GPUs and load the module again (sudo rmmod nvidia_uvm nvidia_drm "
    "nvidia_modeset nvidia, then sudo modprobe nvidia); in a container, start it again with the "
    "host's driver libraries"
)
_MODULE_VERSION = re.compile(r"Kernel Module[^\n]{0,60}?\s(\d{3,4}\.\d+(?:\.\d+)?)")
_LIBRARY_VERSION = re.compile(r"libnvidia-ml\.so\.(\d{3,4}\.\d+(?:\.\d+)?)$", re.MULTILINE)
_MOST_CHARS = 2**20


def mismatch_words(module: Path | None = None, maps: Path | None = None) -> str:
    """The mismatch in one sentence, with both versions if known."""
    kernel = _version(MODULE if module is None else module, _MODULE_VERSION)
    library = _version(MAPS if maps is None else maps, _LIBRARY_VERSION)
    return (
        f"the NVIDIA kernel module{kernel} and the driver library{library} are of different "
        "versions: no engine can use a GPU"
    )


def _version(path: Path, pattern: re.Pattern[str]) -> str:
    try:
        with path.open(errors="replace") as file:
            found = pattern.search(file.read(_MOST_CHARS))
    except OSError:
        return ""
    return f" ({found[1]})" if found else ""
