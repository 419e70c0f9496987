"""Facts on their way up: each source writes one kind of fact into the store."""

from __future__ import annotations

from llmtop.tui.sources.cost import CostSource
from llmtop.tui.sources.effects import EffectSource
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.sources.experiment import NewLoad, Parts
from llmtop.tui.sources.experiments import Experiments
from llmtop.tui.sources.gpu import GpuSource
from llmtop.tui.sources.insight import InsightSource
from llmtop.tui.sources.load import LoadSource
from llmtop.tui.sources.load_state import EngineStates
from llmtop.tui.sources.sampling import Sampling, Source
from llmtop.tui.sources.shared_load import SharedLoadSource
from llmtop.tui.store.timeline import Timeline

__all__ = [
    "CostSource",
    "EffectSource",
    "EngineSource",
    "EngineStates",
    "Experiments",
    "GpuSource",
    "InsightSource",
    "LoadSource",
    "NewLoad",
    "Parts",
    "Sampling",
    "SharedLoadSource",
    "Source",
    "Timeline",
]
