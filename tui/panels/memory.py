"""The parts of an engine's GPU memory: as a bar, and in GiB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmtop.engines.logs.memory_report import Division, divide
from llmtop.tui.view.view import LifecycleView, View
from llmtop.tui.widgets.bar import parts_bar
from llmtop.tui.widgets.row import FAINT, MUTED, STRONG, Span, join
from llmtop.wording import format as f

if TYPE_CHECKING:
    from llmtop.engines.core.samples import GpuSample
    from llmtop.tui.store.store import EngineTrack
    from llmtop.tui.widgets.frame import Ranked
    from llmtop.tui.widgets.glyphs import Glyphs

LITTLE = 0.05 * f.GIB  # bytes; a smaller part would be shown as 0.0 GiB


def on_gpu(gpu: GpuSample, view: View) -> Division | None:
    """The selected engine's memory on this GPU; None if it is not on it, or reported nothing."""
    engine = view.engine
    report = (
        engine.memory_report if engine is not None and view.stage is LifecycleView.RUNNING else None
    )
    if engine is None or report is None or report.simulated or gpu.memory_used_bytes is None:
        return None
    if not engine.is_on(gpu, view.store.gpus):
        return None
    return divide(
        report,
        used=gpu.memory_used_bytes,
        total=gpu.memory_total_bytes,
        kv_usage=_kv_usage(view),
        processes=gpu.processes,
    )


def simulated(view: View) -> Division | None:
    """The selected engine's memory on its simulated GPU; None if it has none."""
    engine = view.engine
    report = (
        engine.memory_report if engine is not None and view.stage is LifecycleView.RUNNING else None
    )
    if report is None or not report.simulated:
        return None
    return divide(report, kv_usage=_kv_usage(view))


def _kv_usage(view: View) -> float | None:
    return view.sample.kv_usage if view.sample is not None else None


def memory_bar(parts: Division, cells: int, glyphs: Glyphs) -> list[Span]:
    """The parts side by side. The part of the KV cache that holds tokens is drawn full."""
    used = parts.kv if parts.kv_used is None else min(parts.kv, parts.kv_used)
    sizes = (
        (parts.weights, "gpu", glyphs.full),
        (used, "kv", glyphs.full),
        (parts.kv - used, "kv", glyphs.held),
        (parts.graphs, "itl", glyphs.full),
        (parts.activations, "prefill", glyphs.full),
        (parts.rest, "other", glyphs.full),
        (parts.others, "warn", glyphs.full),
    )
    drawn = [part for part in sizes if part[0] > 0]
    spans = parts_bar([part[:2] for part in drawn], parts.total or 0, cells, glyphs)
    # Parts that got no cell are always the last ones.
    textures = [glyph for _, _, glyph in drawn]
    return [
        (textures[n] * len(text), role) if n < len(textures) and role != FAINT else (text, role)
        for n, (text, role) in enumerate(spans)
    ]


def memory_words(
    parts: Division, cells: int, rows: int = 1, *, stale: bool = False
) -> list[list[Span]]:
    """The parts in GiB, in the order of the bar, in one row or two. Free memory is left out last.

    stale: the used KV cache is muted, because the engine last reported it some time ago. The other
    figures do not come from its metrics.
    """
    kv: list[Span] = [("KV ", MUTED), (f.gib(parts.kv), "kv")]
    full = list(kv)
    if parts.kv_used is not None:
        used: Span = (f.gib(parts.kv_used), MUTED if stale else STRONG)
        full += [(" (used ", MUTED), used, (")", MUTED)]
    large: list[Ranked] = [(2, _part("weights", parts.weights, "gpu")), (1, full)]
    small: list[Ranked] = [
        (4, _part("graphs", parts.graphs, "itl")),
        (6, _part("activations", parts.activations, "prefill")),
        (5, _part("other", parts.rest, "other")),
        (3, _part("other processes", parts.others, "warn")),
        (0, [("free ", MUTED), (f.gib(parts.free), STRONG)]),
    ]
    if rows > 1:
        return [join(large, cells), join(small, cells)]
    found = join([*large, *small], cells)
    if kv[1] not in found:
        found = join([large[0], (1, kv), *small], cells)
    return [found]


def _part(word: str, size: float, role: str) -> list[Span]:
    return [(f"{word} ", MUTED), (f.gib(size), role)] if size >= LITTLE else []


def held_words(engine: EngineTrack, view: View) -> str:
    """The GPU memory that an engine holds: from NVML if that knows its processes.

    Else the sum of its own report; ``--`` if neither is known.
    """
    report = engine.memory_report
    if report is None:
        return f.ABSENT
    sizes = [
        process.memory_bytes
        for gpu in view.store.gpus
        if gpu.mig_of is None
        for process in gpu.processes
        if process.pid in report.pids and process.memory_bytes is not None
    ]
    if sizes:
        return f"{f.gib(sum(sizes))} GiB"
    parts = (report.weights, report.kv, report.graphs, report.runtime)
    if all(part is None for part in parts):
        return f.ABSENT
    size = f"{f.gib(sum(part for part in parts if part is not None))} GiB"
    return f"{size}, simulated" if report.simulated else f"about {size}"
