"""Refuses launches without an API server: the worker node of a multi-node engine has no HTTP.

llmtop would wait for it until the time limit, and could not check its health.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmtop import UsageError
from llmtop.engines.tuning.argv_parser import last_value, pairs

RANK = ("--node-rank", "-r")
_OFF = ("false", "0", "no")


def refuse_other_nodes(args: Sequence[str]) -> None:
    """UsageError for a node that has no API server of its own."""
    headless = [value for name, value in pairs(args) if name == "--headless"]
    if headless and headless[-1].lower() not in _OFF:
        raise _refused("--headless")
    if last_value(args, "--api-server-count", "-asc") == "0":
        raise _refused("--api-server-count 0")
    rank = last_value(args, *RANK)
    if rank is not None and rank.strip() not in ("", "0"):
        raise _refused(f"--node-rank {rank[:20]}")


def _refused(flag: str) -> UsageError:
    return UsageError(
        f"with {flag} this node answers no requests, so llmtop cannot monitor it",
        "start this node by hand, and the node of rank 0 with llmtop",
    )
