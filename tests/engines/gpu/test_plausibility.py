"""What a GPU can report, and what it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmtop.engines.core.samples import GpuProcess
from llmtop.engines.gpu import plausibility as plausible
from llmtop.engines.gpu.unified_memory import machine_memory

ONES = 2**32 - 1
GIB = 2**30


def test_what_can_be_stays() -> None:
    assert plausible.memory((16 * GIB, 0)) == (16 * GIB, 0)
    assert plausible.memory((16 * GIB, 16 * GIB)) == (16 * GIB, 16 * GIB)
    assert (plausible.share(0.0), plausible.share(1.0)) == (0.0, 1.0)
    assert (plausible.watts(0.0), plausible.limit_w(1200.0)) == (0.0, 1200.0)
    assert plausible.joules(2.6e9) == 2.6e9
    assert plausible.celsius(0.0) == 0.0
    assert plausible.megahertz(0) == 0
    assert (plausible.reasons(0), plausible.reasons(0x400)) == (0, 0x400)


def test_what_cannot_be_is_unknown() -> None:
    assert plausible.memory((0, 0)) == (None, None)
    assert plausible.memory((2**64 - 1, 5)) == (None, None)
    assert plausible.memory((16 * GIB, 17 * GIB)) == (16 * GIB, None)
    assert plausible.share(ONES / 100) is None
    assert plausible.watts(ONES / 1000) is None and plausible.limit_w(0.0) is None
    assert plausible.joules((2**64 - 1) / 1000) is None
    assert plausible.celsius(float(ONES)) is None
    assert plausible.megahertz(ONES) is None
    assert plausible.reasons(ONES) is None and plausible.reasons(2**64 - 1) is None
    nan = float("nan")
    assert plausible.share(nan) is None and plausible.watts(nan) is None


def test_processes_are_real_ones_that_hold_what_there_is() -> None:
    found = [GpuProcess(pid, 5) for pid in (0, 1, 4_194_304, 4_194_305, ONES)]
    assert [one.pid for one in plausible.processes(found, 10)] == [1, 4_194_304]
    (one,) = plausible.processes([GpuProcess(7, 11)], 10)
    assert one == GpuProcess(7, None)
    assert plausible.processes(None, None) == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n", (1_024_000, 614_400)),
        ("MemTotal: 1000 kB\n", None),
        ("MemTotal: 0 kB\nMemAvailable: 0 kB\n", None),
        ("MemTotal: 10 kB\nMemAvailable: 40 kB\n", None),
        ("MemTotal: many kB\nMemAvailable:\n", None),
        ("", None),
    ],
)
def test_the_machines_memory(text: str, found: tuple[int, int] | None, tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text(text)
    assert machine_memory(path) == found
    assert machine_memory(tmp_path / "none") is None
