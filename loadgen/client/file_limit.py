"""The limit of open files (RLIMIT_NOFILE): each stream of a load is a socket, which is a file."""

from __future__ import annotations

import resource

SPARE_FILES = 32  # that a worker has open beside its streams, with room
MOST_STREAMS = 16_384  # of one worker, whatever the limit


def raise_limit(wanted: int = MOST_STREAMS + SPARE_FILES) -> int:
    """Raise this process's soft limit up to ``wanted`` files, within its hard limit.

    Returns the files that may be open, ``wanted`` at most.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)


def streams_of(files: int) -> int:
    """The streams that one worker can have with this limit of open files."""
    return max(1, min(files - SPARE_FILES, MOST_STREAMS))


def most_streams(workers: int) -> int:
    """The streams that these workers can have on this machine, before they are started."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = MOST_STREAMS + SPARE_FILES if hard == resource.RLIM_INFINITY else hard
    return workers * streams_of(files)
