"""Assigns the samples of a Prometheus to targets, and restores the labels of the engine.

A Prometheus adds the labels of a target to each of its series. They are removed here, so that an
adapter reads the labels of the engine's own metrics page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmtop.engines.metrics.exposition import Exposition
from llmtop.fleet.promql import Labels, Sample
from llmtop.fleet.targets import Key, Target

# The labels of a series, the key of its target (None: no target), its name, the engine's labels.
_Series = tuple[Labels, Key | None, str, Labels]


class Pages:
    """Groups samples into one page per target, at each poll.

    The target of a series is cached while its labels are the same object and the targets have the
    same labels.
    """

    def __init__(self) -> None:
        self._known: dict[int, _Series] = {}  # by the id of the labels
        self._targets: dict[Key, Mapping[str, str]] = {}
        self._by_address: dict[tuple[str, str], list[Target]] = {}

    def of(self, targets: Iterable[Target], samples: Iterable[Sample]) -> dict[Key, Exposition]:
        """The samples of each target as on its own metrics page, by key; no empty pages."""
        self._set_targets(targets)
        known, seen = self._known, {}
        found: dict[Key, dict[str, list[tuple[Labels, float]]]] = {key: {} for key in self._targets}
        for sample in samples:
            labels = sample.labels
            series = known.get(id(labels))
            if series is None or series[0] is not labels:
                series = self._series(labels)
            seen[id(labels)] = series
            _, key, name, own = series
            if key is not None:
                page = found[key]
                if name in page:
                    page[name].append((own, sample.value))
                else:
                    page[name] = [(own, sample.value)]
        self._known = seen
        return {key: Exposition(page) for key, page in found.items() if page}

    def _set_targets(self, targets: Iterable[Target]) -> None:
        listed = list(targets)
        labels = {target.key: target.labels for target in listed}
        if labels == self._targets:
            return
        self._known, self._targets, self._by_address = {}, labels, {}
        for target in listed:
            address = (target.labels.get("job", ""), target.labels.get("instance", ""))
            self._by_address.setdefault(address, []).append(target)

    def _series(self, labels: Labels) -> _Series:
        name = labels.get("__name__")
        candidates = self._by_address.get((labels.get("job", ""), labels.get("instance", "")), ())
        for target in candidates:
            if name is not None and target.labels.items() <= labels.items():
                return labels, target.key, name, _own(labels, target.labels)
        return labels, None, "", labels


def pages_of(targets: Iterable[Target], samples: Iterable[Sample]) -> dict[Key, Exposition]:
    """The samples of each target as on its own metrics page, by key, without a cache."""
    return Pages().of(targets, samples)


def _own(labels: Labels, of_target: Labels) -> Labels:
    """The labels that the engine wrote.

    Prometheus renames a label that a target also has to ``exported_NAME``. It gets its name back.
    """
    own = {
        name: text for name, text in labels.items() if name not in of_target and name != "__name__"
    }
    renamed = [name for name in own if name.startswith("exported_")]
    for name in renamed:
        own.setdefault(name.removeprefix("exported_"), own.pop(name))
    return own
