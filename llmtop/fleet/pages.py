"""Which samples belong to which target of a Prometheus, and what the engine itself wrote of them.

The labels of a target are on each of its series. They are taken off, so that an engine's table sees
the labels of the engine's page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmtop.engines.metrics.exposition import Exposition
from llmtop.fleet.promql import Labels, Sample
from llmtop.fleet.targets import Key, Target

# The labels as they came, the key of their target (None: of no target), the name, the engine's own.
_Place = tuple[Labels, Key | None, str, Labels]


class Pages:
    """Lays samples out as pages, again and again.

    Where a series belongs is worked out once, for as long as its labels are the same object and
    the targets have the same labels.
    """

    def __init__(self) -> None:
        self._known: dict[int, _Place] = {}
        self._targets: dict[Key, Mapping[str, str]] = {}
        self._by_address: dict[tuple[str, str], list[Target]] = {}

    def of(self, targets: Iterable[Target], samples: Iterable[Sample]) -> dict[Key, Exposition]:
        """The samples of each target as its own page has them, by key."""
        self._note(targets)
        known, seen = self._known, {}
        found: dict[Key, dict[str, list[tuple[Labels, float]]]] = {key: {} for key in self._targets}
        for sample in samples:
            labels = sample.labels
            place = known.get(id(labels))
            if place is None or place[0] is not labels:
                place = self._place(labels)
            seen[id(labels)] = place
            _, key, name, own = place
            if key is not None:
                page = found[key]
                if name in page:
                    page[name].append((own, sample.value))
                else:
                    page[name] = [(own, sample.value)]
        self._known = seen
        return {key: Exposition(page) for key, page in found.items() if page}

    def _note(self, targets: Iterable[Target]) -> None:
        given = list(targets)
        labels = {target.key: target.labels for target in given}
        if labels == self._targets:
            return
        self._known, self._targets, self._by_address = {}, labels, {}
        for target in given:
            address = (target.labels.get("job", ""), target.labels.get("instance", ""))
            self._by_address.setdefault(address, []).append(target)

    def _place(self, labels: Labels) -> _Place:
        name = labels.get("__name__")
        near = self._by_address.get((labels.get("job", ""), labels.get("instance", "")), ())
        for target in near:
            if name is not None and target.labels.items() <= labels.items():
                return labels, target.key, name, _own(labels, target.labels)
        return labels, None, "", labels


def pages_of(targets: Iterable[Target], samples: Iterable[Sample]) -> dict[Key, Exposition]:
    """The same once."""
    return Pages().of(targets, samples)


def _own(labels: Labels, of_target: Labels) -> Labels:
    """The labels that the engine wrote; one that a target's label pushed aside has its name."""
    own = {
        name: text for name, text in labels.items() if name not in of_target and name != "__name__"
    }
    aside = [name for name in own if name.startswith("exported_")]
    for name in aside:
        own.setdefault(name.removeprefix("exported_"), own.pop(name))
    return own
