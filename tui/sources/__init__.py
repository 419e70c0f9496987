"""Facts on their way up: each source keeps its part of the store true, on its own beat.

A source that fails marks its own part stale; it never takes another one, or the screen, with it.
"""

from __future__ import annotations

from llmtop.tui.sources.cost import CostSource
from llmtop.tui.sources.effects import EffectSource
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.sources.experiment import NewLoad, Parts
from llmtop.tui.sources.experiments import Experiments
from llmtop.tui.sources.gpu import GpuSource
from llmtop.tui.sources.load import LoadSource
from llmtop.tui.sources.sampling import Sampling, Source
from llmtop.tui.sources.timeline import Timeline

__all__ = [
    "CostSource",
    "EffectSource",
    "EngineSource",
    "Experiments",
    "GpuSource",
    "LoadSource",
    "NewLoad",
    "Parts",
    "Sampling",
    "Source",
    "Timeline",
]
