"""The data-parallel ranks of a vLLM server, from its arguments.

Source: vLLM 0.32, engine/arg_utils.py (``create_engine_config``). With the internal load balancer
the server controls all ranks of the deployment. With the hybrid one it controls the ranks of its
own machine, and with an external one a single rank.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.engines.tuning.argv_parser import has_flag, last_value, read_value

SIZE = ("--data-parallel-size", "-dp")
LOCAL = ("--data-parallel-size-local", "-dpl")
RANK = ("--data-parallel-rank", "-dpn")
START = ("--data-parallel-start-rank", "-dpr")
HYBRID = ("--data-parallel-hybrid-lb", "-dph")
MOST = 10_000  # a larger size is a mistake; also bounds the search for sockets


def live_ranks(args: Sequence[str]) -> tuple[int, ...]:
    """The ranks that one server controls, in order; () without data parallelism.

    They include ranks on other machines: a change must be reported as missing there.
    """
    size = _count(args, SIZE)
    if size is None or not 1 < size <= MOST:
        return ()
    external = _count(args, RANK)
    if external is not None:
        return (external,)
    local = _count(args, LOCAL)
    start = _count(args, START)
    hybrid = has_flag(args, *HYBRID) or start is not None
    if hybrid and local is not None and 0 < local < size:
        begin = start or 0
        return tuple(range(begin, begin + local))
    return tuple(range(size))


def _count(args: Sequence[str], flags: Sequence[str]) -> int | None:
    text = last_value(args, *flags)
    value = read_value(text, int) if text else None
    return value if isinstance(value, int) and value >= 0 else None
