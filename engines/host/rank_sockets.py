"""Paths of the live-option sockets of an engine's data-parallel ranks.

Rank 0 has the plain path, rank N the path with the suffix ``.N``. All released plugins use these
names (engines/vllm/plugin). Front ends, the HTTP server processes, have the suffix ``.front.N``.
Numbers that the processes share, such as the queue length, are in files with the suffix ``.queue``.
"""

from __future__ import annotations

import stat
from pathlib import Path

SUFFIX_BYTES = 12  # of the longest suffix: .front. and five digits
RANK_DIGITS = 5
SHARED = (".queue", ".refused")


def socket_of(path: Path, rank: int) -> Path:
    """The socket of one rank. path: that of rank 0."""
    return path if rank == 0 else path.with_name(f"{path.name}.{rank}")


def rank_sockets(path: Path) -> list[int]:
    """The ranks with a socket file now, in order, with or without a listener."""
    found = []
    prefix = f"{path.name}."
    try:
        entries = list(path.parent.iterdir())
    except OSError:
        return []
    for entry in entries:
        suffix = entry.name.removeprefix(prefix)
        if entry.name == path.name:
            rank = 0
        elif suffix != entry.name and _is_rank(suffix):
            rank = int(suffix)
        else:
            continue
        if _is_socket(entry):
            found.append(rank)
    return sorted(found)


def front_end_sockets(path: Path) -> list[Path]:
    """The front ends' sockets that exist now, in order. path: the socket of rank 0."""
    prefix = f"{path.name}.front."
    try:
        entries = list(path.parent.iterdir())
    except OSError:
        return []
    found = []
    for entry in entries:
        number = entry.name.removeprefix(prefix)
        if number != entry.name and (number == "0" or _is_rank(number)) and _is_socket(entry):
            found.append((int(number), entry))
    return [entry for _, entry in sorted(found)]


def remove_sockets(path: Path) -> None:
    """Remove the sockets of an ended engine. Other files at these paths stay."""
    ranks = [socket_of(path, rank) for rank in rank_sockets(path)]
    for one in (*ranks, *front_end_sockets(path), *_shared_files(path)):
        try:
            one.unlink()
        except OSError:
            continue


def _shared_files(path: Path) -> list[Path]:
    try:
        entries = list(path.parent.iterdir())
    except OSError:
        return []
    ours = [one for one in entries if one.name.startswith(f"{path.name}.")]
    return [one for one in ours if one.name.endswith(SHARED) and _is_plain(one)]


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _is_rank(text: str) -> bool:
    plain = text.isascii() and text.isdigit() and len(text) <= RANK_DIGITS
    return plain and text[0] != "0"


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False
