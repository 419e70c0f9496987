"""What is asked of a Prometheus at each beat: a fixed number of queries, however many instances.

All of it is one moment: each query carries the same time. The names of the series come from the
engines' own tables (``Adapter.series``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from msgspec import Struct

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.samples import Latency

# An instance that was scraped within this time and is gone is still shown.
REMEMBERED = "1h"
# Of dcgm-exporter and nvidia_gpu_exporter: name -> (what it is, factor to watts or to a share).
GPU_SERIES: Mapping[str, tuple[str, float]] = {
    "DCGM_FI_DEV_POWER_USAGE": ("power", 1.0),
    "nvidia_smi_power_draw_watts": ("power", 1.0),
}
COUNTED = "llmtop_counted"
_MATCHER = re.compile(
    r'\s*[a-zA-Z_][a-zA-Z0-9_]*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\\n]|\\.)*"\s*'
    r'(?:,\s*[a-zA-Z_][a-zA-Z0-9_]*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\\n]|\\.)*"\s*)*,?\s*'
)
MOST_MATCH = 1000  # characters


class Questions(Struct, frozen=True, dict=True):
    """The queries of a beat. match: label matchers that instances must have, "" for all.

    latencies: the distributions whose buckets are fetched at each beat.
    """

    adapters: tuple[Adapter, ...]
    match: str = ""
    latencies: tuple[Latency, ...] = (Latency.TTFT,)

    @cached_property
    def values(self) -> str:
        """Gauges and counters of all engines."""
        return self._named(self._names("values") - {_START})

    @cached_property
    def buckets(self) -> str:
        """Buckets and sums of the latencies."""
        names = [
            name
            for adapter in self.adapters
            if adapter.series is not None
            for latency in self.latencies
            for own in adapter.series.histograms.get(latency, ())
            for name in _renamings(own, adapter)
        ]
        return self._named(f"{name}{end}" for name in names for end in ("_bucket", "_sum"))

    @cached_property
    def up(self) -> str:
        """Whether the last scrape of each target that is or was an engine succeeded."""
        return f"up{self._matcher} and on (job, instance) {self.remembered}"

    @cached_property
    def scraped_at(self) -> str:
        """When the last scrape of each of them was, unix seconds."""
        return f"timestamp(up{self._matcher}) and on (job, instance) {self.remembered}"

    @cached_property
    def scrape_s(self) -> str:
        """How long it took."""
        name = f"scrape_duration_seconds{self._matcher}"
        return f"{name} and on (job, instance) {self.remembered}"

    @cached_property
    def started(self) -> str:
        """When each process of an engine began, unix seconds."""
        return f"{_START}{self._matcher} and on (job, instance) {self._running}"

    @property
    def gpus(self) -> str:
        """Power and number of GPUs by host, and by pod where the exporter says in which one a GPU
        is used. The numbers have the label ``COUNTED``."""
        names = "|".join(GPU_SERIES)
        by = "__name__, instance, Hostname, hostname, node, exported_pod, pod"
        # One GPU that is shared out (MIG) has several series with the same power.
        found = f'max by ({by}, UUID, uuid, gpu) ({{__name__=~"{names}"}})'
        counted = f'label_replace(count by ({by}) ({found}), "{COUNTED}", "yes", "", "")'
        return f"sum by ({by}) ({found}) or {counted}"

    @cached_property
    def all(self) -> tuple[str, ...]:
        """Every query of a beat, in the order of the names above."""
        return (
            *(self.values, self.buckets, self.up, self.scraped_at, self.scrape_s),
            *(self.started, self.gpus, self.remembered),
        )

    @cached_property
    def _running(self) -> str:
        running = self._names("running")
        return self._named(running)

    @cached_property
    def remembered(self) -> str:
        """The last gauge of running requests of each instance, also of those that are gone."""
        return f"last_over_time({self._running}[{REMEMBERED}])"

    @property
    def _matcher(self) -> str:
        return f"{{{self.match}}}" if self.match else ""

    def _names(self, field: str) -> set[str]:
        return {
            name
            for adapter in self.adapters
            if adapter.series is not None
            for own in getattr(adapter.series, field)
            for name in _renamings(own, adapter)
        }

    def _named(self, names: Iterable[str]) -> str:
        more = f", {self.match}" if self.match else ""
        return f'{{__name__=~"{"|".join(sorted(names))}"{more}}}'


_START = "process_start_time_seconds"


def matcher(text: str) -> str:
    """Label matchers as they are typed: ``job="vllm"``, with or without braces.

    UsageError for anything else: an expression could ask for other series, or for all of them.
    """
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1].strip()
    if not inner:
        return ""
    if len(inner) > MOST_MATCH or not _MATCHER.fullmatch(inner):
        raise UsageError(
            "--match is not a list of label matchers", "write it like --match 'job=\"vllm\"'"
        )
    return inner.rstrip(",").rstrip()


def _renamings(name: str, adapter: Adapter) -> tuple[str, ...]:
    """A name, and how a collector that renames series may have written it."""
    others = [
        other + name.removeprefix(own)
        for other, own in adapter.renamed.items()
        if name.startswith(own)
    ]
    return (name, *others)
