"""Which of an engine's ranks a scheduler is, and which of them decide together."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("sglang.llmtop")

OWN_WAY = "/set_internal_state"
LEAD = ("tp_rank", "pp_rank", "attn_cp_rank")


class Ranks:
    """The place of one scheduler.

    data: its data-parallel rank. lead: whether it speaks for the ranks that decide as it does.
    together: how many ranks must do the same in the same round, itself included. obstacle: why
    nothing can be changed through its socket, or None.
    """

    def __init__(self, scheduler: Any) -> None:
        args = scheduler.server_args
        self.data = _place(scheduler, "dp_rank") or 0
        self.stages = _size(args, "pp_size")
        groups = _size(args, "dp_size") if getattr(args, "enable_dp_attention", False) else 1
        self.together = max(_size(args, "tp_size") // groups, 1) * self.stages
        names = ("attn_tp_rank", *LEAD[1:]) if groups > 1 else LEAD
        self.lead = not any(_place(scheduler, name) for name in names)
        self.obstacle = _obstacle(args)


def _place(scheduler: Any, name: str) -> int:
    """This process's place among the ranks; where that is kept has moved twice since 0.5.12."""
    holders = [scheduler, getattr(scheduler, "ps", None)]
    try:
        from sglang.srt.runtime_context import get_parallel

        holders.append(get_parallel())
    except Exception:
        log.debug("llmtop: no runtime context", exc_info=True)
    found = (getattr(holder, name, None) for holder in holders)
    return next((value for value in found if isinstance(value, int)), 0)


def _size(args: Any, name: str) -> int:
    found = getattr(args, name, 1)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 1


def _obstacle(args: Any) -> str | None:
    """Why nothing can be changed from inside, or None.

    Ranks that schedule must do so alike, or they wait for each other for ever: a value would have
    to reach all of them in the same round. SGLang's own endpoint does that, our socket does not.
    """
    for size, words in (("tp_size", "tensor"), ("pp_size", "pipeline"), ("dp_size", "data")):
        ranks = _size(args, size)
        if ranks > 1:
            return f"{words} parallel over {ranks} ranks: only {OWN_WAY} reaches all of them"
    return None


def socket_path(path: str, rank: int) -> str:
    """Where a data-parallel rank's socket is: rank 0 has the plain path."""
    return f"{path}.{rank}" if rank else path
