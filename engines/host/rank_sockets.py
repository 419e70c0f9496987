"""Where the live-option sockets of an engine's data-parallel ranks are.

Rank 0 has the plain path, rank N the path with ``.N`` behind it. The plugins name them so
(engines/vllm/plugin), and every plugin ever shipped did. Front ends, the processes that serve HTTP
before the schedulers, have ``.front.N`` behind it. Numbers that the processes share, such as the
length of the queue, lie in files with ``.queue`` behind a socket's path.
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
    """The ranks that have a socket file now, in order, whether or not anybody listens on it."""
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
    """The sockets of front ends that exist now, in order. path: the socket of rank 0."""
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
    """Remove the sockets that a dead engine left; anything else at those paths stays."""
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
