"""The limit of open files (RLIMIT_NOFILE): each stream of a load needs one socket."""

from __future__ import annotations

import resource

SPARE_FILES = 32  # open files of a worker besides its streams, rounded up
MOST_STREAMS = 16_384  # of one worker, independent of the limit


def raise_limit(wanted: int = MOST_STREAMS + SPARE_FILES) -> int:
    """Raise this process's soft limit up to ``wanted`` files, within its hard limit.

    Returns the number of files that may be open, at most ``wanted``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return wanted if soft == resource.RLIM_INFINITY else min(soft, wanted)


def streams_of(files: int) -> int:
    """The most streams of one worker with this limit of open files."""
    return max(1, min(files - SPARE_FILES, MOST_STREAMS))


def most_streams(workers: int) -> int:
    """The most streams of ``workers`` worker processes on this machine."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = MOST_STREAMS + SPARE_FILES if hard == resource.RLIM_INFINITY else hard
    return workers * streams_of(files)
