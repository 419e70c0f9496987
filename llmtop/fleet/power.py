"""Assigns GPUs and their power to instances, from the metrics of GPU exporters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field

from llmtop.fleet.instances import Instance
from llmtop.fleet.promql import Labels, Sample
from llmtop.fleet.queries import COUNTED
from llmtop.fleet.targets import host_of
from llmtop.values import replace

_HOSTS = ("Hostname", "hostname", "node")
_PODS = ("exported_pod", "pod")


class Power(Struct, frozen=True):
    """Power in watts (hosts, pods) and numbers of GPUs (host_gpus, pod_gpus), by host and pod."""

    hosts: Mapping[str, float]
    pods: Mapping[str, float]
    host_gpus: Mapping[str, float] = field(default_factory=dict)
    pod_gpus: Mapping[str, float] = field(default_factory=dict)


def power_of(samples: Iterable[Sample]) -> Power:
    """The power and the GPUs that exporters report. Several exporters of a host count once."""
    hosts: dict[str, dict[str, float]] = {}
    pods: dict[str, dict[str, float]] = {}
    host_gpus: dict[str, dict[str, float]] = {}
    pod_gpus: dict[str, dict[str, float]] = {}
    for one in samples:
        if one.value < 0:
            continue
        source = one.labels.get("__name__", "")
        host = _first(one.labels, _HOSTS) or host_of(one.labels.get("instance", ""))
        counts = COUNTED in one.labels
        _add(host_gpus if counts else hosts, host, source, one.value)
        if pod := one.labels.get("exported_pod", ""):
            _add(pod_gpus if counts else pods, pod, source, one.value)
    return Power(_largest(hosts), _largest(pods), _largest(host_gpus), _largest(pod_gpus))


class Prices(Struct, frozen=True):
    """Prices. gpu_hour: of one GPU for one hour; None: not known.

    gpus: the GPUs of an instance for which no exporter reports them; None: not known.
    """

    gpu_hour: float | None = None
    gpus: int | None = None

    def of(self, one: Instance, gpus: float | None) -> Instance:
        """The instance with the number of its GPUs and their price per hour."""
        number = self.gpus if gpus is None else round(gpus)
        if number is None:
            return one
        price = None if self.gpu_hour is None else self.gpu_hour * number
        return replace(one, gpus=number, dollars_per_hour=price)


UNKNOWN = Prices()


def with_power(
    instances: Sequence[Instance], power: Power, prices: Prices = UNKNOWN
) -> list[Instance]:
    """The instances with their GPUs, power and prices.

    By pod if an exporter reports it. Otherwise by host, if no other instance is on that host.
    """
    per_host = Counter(one.host for one in instances)
    found = []
    for one in instances:
        pod = next((one.labels[name] for name in _PODS if one.labels.get(name)), "")
        watts = power.pods.get(pod) if pod else None
        gpus = power.pod_gpus.get(pod)
        if watts is None and one.host in power.hosts:
            if per_host[one.host] > 1:
                found.append(prices.of(replace(one, shared_power=True), None))
                continue
            watts, gpus = power.hosts[one.host], power.host_gpus.get(one.host)
        known = one if watts is None else replace(one, power_w=watts)
        found.append(prices.of(known, gpus))
    return found


def _add(into: dict[str, dict[str, float]], key: str, source: str, value: float) -> None:
    of_key = into.setdefault(key, {})
    of_key[source] = of_key.get(source, 0.0) + value


def _largest(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {key: max(sources.values()) for key, sources in found.items() if key}


def _first(labels: Labels, names: Sequence[str]) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")
