"""GPUs: memory, utilisation, power, clock, temperature; in a box, or one line per GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmtop.tui.panels.memory import memory_bar, memory_words, on_gpu, simulated
from llmtop.tui.view.panel import Panel
from llmtop.tui.widgets.bar import parts_bar
from llmtop.tui.widgets.frame import Ranked, frame
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, Span, fit, join, sides
from llmtop.tui.widgets.row import width as cells
from llmtop.wording import format as f

if TYPE_CHECKING:
    from llmtop.engines.core.samples import GpuSample
    from llmtop.engines.logs.memory_report import Division
    from llmtop.tui.view.view import View
    from llmtop.tui.widgets.glyphs import Glyphs

HOT_C = 85.0  # degrees Celsius; data-centre GPUs throttle a little above


class GpuPanel(Panel):
    """Memory as a bar, the rest as numbers. Fewer than three rows: one line per GPU."""

    _cached_for: tuple[object, ...] = ()  # what the cached box of a simulated GPU was drawn from
    _cached: Sequence[Row] = ()

    def draw(self, view: View, width: int, height: int) -> list[Row]:
        """A box if there is room, else lines."""
        gpus = view.store.gpus
        virtual = simulated(view)
        if virtual is not None:
            stale = view.stale_s is not None
            inputs = (virtual, stale, view.glyphs, width, height)
            if inputs != self._cached_for:
                self._cached = _virtual(virtual, stale, view.glyphs, width, height)
                self._cached_for = inputs
            return list(self._cached)
        if height < 3:
            if not gpus:
                return [fit([(" gpu  ", MUTED), (_note(view), MUTED)], width)]
            return [_line(gpu, width, view) for gpu in gpus[:height]]
        if not gpus:
            body = (
                [(), ((" ", TEXT), (_note(view), MUTED))]
                if height > 4
                else [((_note(view), MUTED),)]
            )
            return frame(body, width, height, view.glyphs, title="GPU")
        if len(gpus) == 1:
            return self._one(gpus[0], view, width, height)
        body = _table(gpus, width - 2, height - 2, view)
        watts = sum(g.power_w for g in gpus if g.power_w is not None)
        used, total = _sums(gpus)
        head: list[Ranked] = [
            (0, [(f"{f.gib(used)}/{f.gib(total)} GiB", "gpu")]),
            (1, [(f"{watts:,.0f} W", STRONG)]),
        ]
        return frame(body, width, height, view.glyphs, title=f"{len(gpus)} GPUs", head=head)

    def _one(self, gpu: GpuSample, view: View, width: int, height: int) -> list[Row]:
        inner = width - 4
        used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
        parts = on_gpu(gpu, view)
        whose = " unified" if gpu.unified else ""
        head: list[Ranked] = [(0, [(f"{f.gib(total)} GiB{whose}", "gpu")])]
        if parts is not None:
            memory = memory_bar(parts, inner, view.glyphs)
            words: Sequence[Sequence[Span]] = memory_words(
                parts, inner, 2 if height > 6 else 1, stale=view.stale_s is not None
            )
            head = [(0, [(f"{f.gib(used)}/{f.gib(total)} GiB{whose}", "gpu")])]
        else:
            memory = parts_bar([(used or 0, "gpu")], total or 0, inner, view.glyphs)
            only = join(
                [
                    (0, [("used ", MUTED), (f.gib(used), STRONG), (" GiB", MUTED)]),
                    (1, [("free ", MUTED), (_free(gpu), STRONG)]),
                    (
                        2,
                        [("processes ", MUTED), (str(len(gpu.processes)), STRONG)]
                        if gpu.processes
                        else [],
                    ),
                ],
                inner,
                "   ",
            )
            words = [only]
        body = _stack(memory, words, _vitals(gpu, view, inner), height)
        title = f"GPU {gpu.index} {view.glyphs.dot} {f.clean(gpu.name, 40)}"
        return frame(body, width, height, view.glyphs, title=title, head=head)


def _stack(
    memory: Sequence[Span], words: Sequence[Sequence[Span]], last: Sequence[Span], height: int
) -> list[Row]:
    """The rows of the box: the bar, its words, the rest; with blank rows if there is room."""
    body: list[Row] = [((" ", TEXT), *row) for row in (memory, *words, last)]
    if height - 2 > 4:
        body.insert(len(body) - 1, ())
    if height - 2 > len(body):
        body.insert(0, ())
    return body


def _virtual(parts: Division, stale: bool, glyphs: Glyphs, width: int, height: int) -> list[Row]:
    """The memory of a simulated GPU, marked as simulated."""
    if height < 3:
        room = max(0, width - 20)
        drawn = memory_bar(parts, min(30, room // 2), glyphs)
        (words,) = memory_words(parts, max(0, room - cells(drawn)), stale=stale)
        return [fit([(" gpu ", MUTED), ("simulated ", "warn"), *drawn, (" ", TEXT), *words], width)]
    inner = width - 4
    lines = memory_words(parts, inner, 2 if height > 6 else 1, stale=stale)
    why: list[Span] = [("no such GPU: no power or clock to show", MUTED)]
    body = _stack(memory_bar(parts, inner, glyphs), lines, why, height)
    head: list[Ranked] = [(0, [(f"{f.gib(parts.total)} GiB", "gpu")])]
    title = f"GPU {glyphs.dot} simulated"
    return frame(body, width, height, glyphs, title=title, head=head)


def _bar(gpu: GpuSample, view: View, cells: int) -> list[Span]:
    """The parts of the engine's memory if it is on this GPU, else the used memory."""
    parts = on_gpu(gpu, view)
    if parts is not None:
        return memory_bar(parts, cells, view.glyphs)
    used, total = gpu.memory_used_bytes or 0, gpu.memory_total_bytes or 0
    return parts_bar([(used, "gpu")], total, cells, view.glyphs)


def _table(gpus: Sequence[GpuSample], cells: int, rows: int, view: View) -> list[Row]:
    """A line per GPU, or two GPUs on a line if not all fit. The last row counts the rest."""
    if len(gpus) <= rows:
        return [_line(gpu, cells, view) for gpu in gpus]
    half = cells // 2
    out: list[Row] = []
    for at in range(0, len(gpus), 2):
        if len(out) == rows - 1 and at + 2 < len(gpus):
            out.append(((f" and {len(gpus) - at} more", MUTED),))
            break
        pair = [fit(_short(gpu, half - 1, view), half) for gpu in gpus[at : at + 2]]
        out.append(tuple(span for row in pair for span in row))
    return out


def _short(gpu: GpuSample, cells: int, view: View) -> list[Span]:
    used = gpu.memory_used_bytes
    watts = f.ABSENT if gpu.power_w is None else f"{gpu.power_w:.0f}"
    words: list[Span] = [
        (f" {f.gib(used).rjust(5)}", STRONG),
        (f" {f.percent(gpu.utilisation).rjust(4)}", TEXT),
        (f" {watts.rjust(3)} W", "warn" if gpu.throttle else MUTED),
    ]
    bar = _bar(gpu, view, max(3, cells - 21))
    return [(f" {gpu.index:>2} ", MUTED), *bar, *words]


def _note(view: View) -> str:
    engine = view.engine
    if engine is not None and engine.simulated:
        return "simulated GPU: no memory, power or clock to show"
    return f.clean(view.store.gpu_note, 120) or "no GPU here"


def _sums(gpus: Sequence[GpuSample]) -> tuple[int, int]:
    """(used, total) bytes. Unified memory is the memory of the machine, so it counts once."""
    counted = [gpu for gpu in gpus if not gpu.unified]
    counted += [gpu for gpu in gpus if gpu.unified][:1]
    used = sum(gpu.memory_used_bytes or 0 for gpu in counted)
    return used, sum(gpu.memory_total_bytes or 0 for gpu in counted)


def _free(gpu: GpuSample) -> str:
    if gpu.memory_total_bytes is None or gpu.memory_used_bytes is None:
        return f.ABSENT
    return f.gib(gpu.memory_total_bytes - gpu.memory_used_bytes)


def _vitals(gpu: GpuSample, view: View, cells: int) -> list[Span]:
    hot = gpu.temperature_c is not None and gpu.temperature_c >= HOT_C
    groups: list[Ranked] = [
        (3, [("util ", MUTED), (f.percent(gpu.utilisation), STRONG)]),
        (0, _power(gpu)),
        (1, _throttle(gpu, view)),
        (4, _clock(gpu)),
        (2, _temperature(gpu, hot)),
    ]
    return join(groups, cells, "   ")


def _power(gpu: GpuSample) -> list[Span]:
    if gpu.power_w is None:
        return []
    limit = f"/{gpu.power_limit_w:.0f}" if gpu.power_limit_w else ""
    return [("power ", MUTED), (f"{gpu.power_w:.0f}", STRONG), (f"{limit} W", MUTED)]


def _throttle(gpu: GpuSample, view: View) -> list[Span]:
    if not gpu.throttle:
        return []
    return [(f"{view.glyphs.up} {f.clean(', '.join(gpu.throttle), 40)}", "warn")]


def _clock(gpu: GpuSample) -> list[Span]:
    if gpu.sm_clock_mhz is None:
        return []
    return [("SM ", MUTED), (f"{gpu.sm_clock_mhz / 1000:.2f}", STRONG), (" GHz", MUTED)]


def _temperature(gpu: GpuSample, hot: bool) -> list[Span]:
    if gpu.temperature_c is None:
        return []
    return [
        (f"{gpu.temperature_c:.0f}", "bad" if hot else STRONG),
        ("C hot" if hot else "C", MUTED),
    ]


def _line(gpu: GpuSample, width: int, view: View) -> Row:
    name = f.clean(gpu.name, 40).removeprefix("NVIDIA ")
    left: list[Span] = [(f" gpu {gpu.index} ", MUTED), (f"{name[:12]} ", TEXT)]
    vitals = _vitals(gpu, view, max(0, width - 48))
    used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    words: list[Span] = [(f" {f.gib(used)}", STRONG), (f"/{f.gib(total)} GiB", MUTED)]
    words += [(" unified", MUTED)] if gpu.unified else []
    taken = cells((*left, *words, *vitals)) + 4
    bar = _bar(gpu, view, max(4, min(30, width - taken)))
    return sides([*left, *bar, *words], [*vitals, (" ", TEXT)], width)
