"""The scrape targets of a Prometheus, and their names.

Each series of ``up`` is a target. All series of a target have its labels (job, instance, pod, ...).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from llmtop.fleet.promql import Labels, Sample
from llmtop.printable import printable

# Prometheus servers that scrape the same targets (high availability) differ in one of these labels.
REPLICA_LABELS = frozenset({"replica", "prometheus_replica", "__replica__", "prometheus"})
_HOST_LABELS = ("node", "host", "hostname", "nodename", "kubernetes_node")
_VERSION_LABELS = ("engine_version", "version", "app_kubernetes_io_version", "image_tag")
MOST_LABEL = 120  # characters of a label that is shown

Key = tuple[tuple[str, str], ...]


class Target(Struct, frozen=True):
    """One target. up: the last scrape succeeded.

    scraped_at: time of the last scrape, unix seconds. scrape_s: its duration. None: not known.
    """

    key: Key
    labels: Mapping[str, str]
    up: bool
    scraped_at: float | None = None
    scrape_s: float | None = None

    @property
    def job(self) -> str:
        """Its job, cleaned for display."""
        return label_text(self.labels.get("job", ""))

    @property
    def instance(self) -> str:
        """Its address, cleaned for display."""
        return label_text(self.labels.get("instance", ""))

    @property
    def host(self) -> str:
        """The machine that it runs on: from a label, else the host of its address."""
        named = next((self.labels[name] for name in _HOST_LABELS if self.labels.get(name)), "")
        return label_text(named or host_of(self.labels.get("instance", "")))

    @property
    def version(self) -> str | None:
        """The engine's version from a label of the target; None without such a label."""
        found = next((self.labels[name] for name in _VERSION_LABELS if self.labels.get(name)), "")
        return label_text(found) or None


def host_of(address: str) -> str:
    """The host of ``host:port``, of ``[v6]:port`` and of a URL."""
    rest = address.rpartition("//")[2].partition("/")[0]
    if rest.startswith("["):
        return rest[1:].partition("]")[0]
    host, colon, port = rest.rpartition(":")
    return host if colon and port.isdecimal() and ":" not in host else rest


def port_of(address: str) -> int | None:
    """The port of ``host:port``, of ``[v6]:port`` and of a URL; None without a valid port."""
    rest = address.rpartition("//")[2].partition("/")[0]
    host, colon, port = rest.rpartition(":")
    named = colon and port.isascii() and port.isdecimal() and len(port) <= 5
    if not named or (":" in host and not host.endswith("]")):
        return None
    return int(port) if 0 < int(port) < 65536 else None


def label_text(text: str) -> str:
    """A label value cleaned for display, at most MOST_LABEL characters."""
    return printable(text, MOST_LABEL)


def targets_of(
    up: Iterable[Sample], scraped_at: Iterable[Sample], scrape_s: Iterable[Sample]
) -> dict[Key, Target]:
    """The targets by key. If several servers scrape one, the newest scrape is used."""
    times = {_label_set(one.labels): one.value for one in scraped_at}
    durations = {_label_set(one.labels): one.value for one in scrape_s}
    found: dict[Key, Target] = {}
    for one in up:
        label_set = _label_set(one.labels)
        labels = {name: text for name, text in one.labels.items() if name != "__name__"}
        key = key_of(labels)
        target = Target(
            key, labels, one.value == 1.0, times.get(label_set), durations.get(label_set)
        )
        other = found.get(key)
        if other is None or (target.scraped_at or 0.0) > (other.scraped_at or 0.0):
            found[key] = target
    return found


def key_of(labels: Labels) -> Key:
    """The labels that identify a target: all but those of the server that scrapes it."""
    return tuple(
        sorted(
            (name, text)
            for name, text in labels.items()
            if name != "__name__" and name not in REPLICA_LABELS
        )
    )


def _label_set(labels: Labels) -> frozenset[tuple[str, str]]:
    return frozenset(item for item in labels.items() if item[0] != "__name__")
