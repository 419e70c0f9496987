"""The queries of one poll of a Prometheus. Their number does not depend on that of the instances.

All queries of a poll have the same time. The names of the series come from ``Adapter.series``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from msgspec import Struct

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.samples import Latency

# An instance that was scraped within this time is shown after it is gone.
REMEMBERED = "1h"
# Series of dcgm-exporter and of nvidia_gpu_exporter: name -> (quantity, factor to watts).
GPU_SERIES: Mapping[str, tuple[str, float]] = {
    "DCGM_FI_DEV_POWER_USAGE": ("power", 1.0),
    "nvidia_smi_power_draw_watts": ("power", 1.0),
}
COUNTED = "llmtop_counted"  # a label of samples that are numbers of GPUs
_MATCHER = re.compile(
    r'\s*[a-zA-Z_][a-zA-Z0-9_]*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\\n]|\\.)*"\s*'
    r'(?:,\s*[a-zA-Z_][a-zA-Z0-9_]*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\\n]|\\.)*"\s*)*,?\s*'
)
MOST_MATCH = 1000  # characters


class Queries(Struct, frozen=True, dict=True):
    """The queries of a poll. match: label matchers of the instances, "" for all.

    latencies: the distributions whose buckets are queried.
    """

    adapters: tuple[Adapter, ...]
    match: str = ""
    latencies: tuple[Latency, ...] = (Latency.TTFT,)

    @cached_property
    def values(self) -> str:
        """The gauges and counters of all engines."""
        return self._named(self._names("values") - {_START})

    @cached_property
    def buckets(self) -> str:
        """The buckets and sums of the latencies."""
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
        """1 if the last scrape of a target succeeded, else 0; of engines within ``REMEMBERED``."""
        return f"up{self._matcher} and on (job, instance) {self.remembered}"

    @cached_property
    def scraped_at(self) -> str:
        """The time of the last scrape of each of these targets, unix seconds."""
        return f"timestamp(up{self._matcher}) and on (job, instance) {self.remembered}"

    @cached_property
    def scrape_s(self) -> str:
        """The duration of the last scrape of each of these targets, seconds."""
        name = f"scrape_duration_seconds{self._matcher}"
        return f"{name} and on (job, instance) {self.remembered}"

    @cached_property
    def started(self) -> str:
        """The start time of each engine process, unix seconds."""
        return f"{_START}{self._matcher} and on (job, instance) {self._running}"

    @property
    def gpus(self) -> str:
        """Power (watts) and number of GPUs by host, and by pod if the exporter reports the pod.

        Samples with the label ``COUNTED`` are numbers of GPUs.
        """
        names = "|".join(GPU_SERIES)
        by = "__name__, instance, Hostname, hostname, node, exported_pod, pod"
        # A GPU with several MIG instances has several series with the same power.
        found = f'max by ({by}, UUID, uuid, gpu) ({{__name__=~"{names}"}})'
        counted = f'label_replace(count by ({by}) ({found}), "{COUNTED}", "yes", "", "")'
        return f"sum by ({by}) ({found}) or {counted}"

    @cached_property
    def all(self) -> tuple[str, ...]:
        """All queries of a poll, in the order in which ``Observer`` unpacks their answers."""
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
        """The last gauge of running requests of each instance within ``REMEMBERED``."""
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
    """The label matchers of a text such as ``job="vllm"``, with or without braces.

    Raises UsageError for other text: a PromQL expression could select other series, or all.
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
    """The name of a series, and the names that a collector may have given to it."""
    others = [
        other + name.removeprefix(own)
        for other, own in adapter.renamed.items()
        if name.startswith(own)
    ]
    return (name, *others)
