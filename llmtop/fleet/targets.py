"""The targets of a Prometheus: which there are, and how they are called.

A target is what ``up`` has a series of. Its labels (job, instance, pod, ...) are on each of its
series too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from llmtop.fleet.promql import Labels, Sample
from llmtop.printable import printable

# Several Prometheus servers that scrape the same targets differ in one of these.
REPLICA_LABELS = frozenset({"replica", "prometheus_replica", "__replica__", "prometheus"})
_HOST_LABELS = ("node", "host", "hostname", "nodename", "kubernetes_node")
_VERSION_LABELS = ("engine_version", "version", "app_kubernetes_io_version", "image_tag")
MOST_WORD = 120  # characters of a label that is shown

Key = tuple[tuple[str, str], ...]


class Target(Struct, frozen=True):
    """One target. up: its last scrape succeeded. scraped_at: when that was, unix seconds.

    scrape_s: how long it took. None: the server does not say.
    """

    key: Key
    labels: Mapping[str, str]
    up: bool
    scraped_at: float | None = None
    scrape_s: float | None = None

    @property
    def job(self) -> str:
        """Its job, as it may be shown."""
        return word(self.labels.get("job", ""))

    @property
    def instance(self) -> str:
        """Its address, as it may be shown."""
        return word(self.labels.get("instance", ""))

    @property
    def host(self) -> str:
        """The machine that it runs on: a label, else the host of its address."""
        named = next((self.labels[name] for name in _HOST_LABELS if self.labels.get(name)), "")
        return word(named or host_of(self.labels.get("instance", "")))

    @property
    def version(self) -> str | None:
        """The engine's version, where a label of the target has it."""
        found = next((self.labels[name] for name in _VERSION_LABELS if self.labels.get(name)), "")
        return word(found) or None


def host_of(address: str) -> str:
    """The host of ``host:port``, of ``[v6]:port`` and of a URL."""
    rest = address.rpartition("//")[2].partition("/")[0]
    if rest.startswith("["):
        return rest[1:].partition("]")[0]
    host, colon, port = rest.rpartition(":")
    return host if colon and port.isdecimal() and ":" not in host else rest


def port_of(address: str) -> int | None:
    """The port of ``host:port``, of ``[v6]:port`` and of a URL; None where it names none."""
    rest = address.rpartition("//")[2].partition("/")[0]
    host, colon, port = rest.rpartition(":")
    named = colon and port.isascii() and port.isdecimal() and len(port) <= 5
    if not named or (":" in host and not host.endswith("]")):
        return None
    return int(port) if 0 < int(port) < 65536 else None


def word(text: str) -> str:
    """A label as it may be shown."""
    return printable(text, MOST_WORD)


def targets_of(
    up: Iterable[Sample], scraped_at: Iterable[Sample], scrape_s: Iterable[Sample]
) -> dict[Key, Target]:
    """The targets by key. Of one that several servers scrape, the freshest counts."""
    times = {_place(one.labels): one.value for one in scraped_at}
    took = {_place(one.labels): one.value for one in scrape_s}
    found: dict[Key, Target] = {}
    for one in up:
        place = _place(one.labels)
        labels = {name: text for name, text in one.labels.items() if name != "__name__"}
        key = key_of(labels)
        target = Target(key, labels, one.value == 1.0, times.get(place), took.get(place))
        other = found.get(key)
        if other is None or (target.scraped_at or 0.0) > (other.scraped_at or 0.0):
            found[key] = target
    return found


def key_of(labels: Labels) -> Key:
    """What distinguishes a target: its labels but those of the server that scrapes it."""
    return tuple(
        sorted(
            (name, text)
            for name, text in labels.items()
            if name != "__name__" and name not in REPLICA_LABELS
        )
    )


def _place(labels: Labels) -> frozenset[tuple[str, str]]:
    return frozenset(item for item in labels.items() if item[0] != "__name__")
