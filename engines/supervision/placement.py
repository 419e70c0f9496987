"""Finds engines that would share a GPU: each takes its memory share as if it were alone."""

from __future__ import annotations

from collections.abc import Iterable

from llmtop.engines.core.records import LaunchSpec


def crowded(
    specs: Iterable[LaunchSpec], simulated: Iterable[str] = (), gpus: int = 0
) -> tuple[str, ...]:
    """One line for each set of engines that may use the same GPU; () for none.

    simulated: kinds that use no GPU unless GPUs are set. gpus: the number in this machine, for
    engines without set GPUs, which may use all of them.
    """
    simulated = set(simulated)
    users: dict[int, list[LaunchSpec]] = {}
    for spec in specs:
        everywhere = () if spec.kind in simulated else range(gpus)
        for index in spec.gpus or everywhere:
            users.setdefault(index, []).append(spec)
    shared: dict[tuple[str, ...], list[int]] = {}
    vague: dict[tuple[str, ...], list[str]] = {}
    for index in sorted(users):
        names = tuple(spec.name for spec in users[index])
        if len(names) > 1:
            shared.setdefault(names, []).append(index)
            vague[names] = [spec.name for spec in users[index] if not spec.gpus]
    return tuple(_line(names, indices, vague[names]) for names, indices in shared.items())


def _line(names: tuple[str, ...], indices: list[int], vague: list[str]) -> str:
    word = "GPU" if len(indices) == 1 else "GPUs"
    where = f"{word} {', '.join(map(str, indices))}"
    together = f"{', '.join(names[:-1])} and {names[-1]}"
    if vague:
        which = " and ".join(vague)
        return f"{together} may share {where}: no GPUs are set for {which}, so it may use any"
    return f"{together} share {where}: each takes its part of the memory as if it were alone"
