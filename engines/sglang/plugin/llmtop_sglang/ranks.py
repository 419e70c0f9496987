"""The rank of a scheduler, and which ranks must act in lockstep."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("sglang.llmtop")

NATIVE_ENDPOINT = "/set_internal_state"
LEAD = ("tp_rank", "pp_rank", "attn_cp_rank")


class Ranks:
    """The ranks of one scheduler.

    data: its data-parallel rank. stages: the number of pipeline stages. lead: whether it represents
    the ranks in lockstep with it. lockstep_ranks: how many ranks must do the same in the same
    round, including this one. obstacle: why its socket cannot change options, or None.
    """

    def __init__(self, scheduler: Any) -> None:
        args = scheduler.server_args
        self.data = _place(scheduler, "dp_rank") or 0
        self.stages = _size(args, "pp_size")
        groups = _size(args, "dp_size") if getattr(args, "enable_dp_attention", False) else 1
        self.lockstep_ranks = max(_size(args, "tp_size") // groups, 1) * self.stages
        names = ("attn_tp_rank", *LEAD[1:]) if groups > 1 else LEAD
        self.lead = not any(_place(scheduler, name) for name in names)
        self.obstacle = _obstacle(args)


def _place(scheduler: Any, name: str) -> int:
    """A rank of this process, 0 if unknown. Its location has changed twice since 0.5.12."""
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
    """Why the socket of one rank cannot change options, or None.

    Ranks that make different decisions would wait for each other forever. So a value must reach all
    of them in the same round. SGLang's own endpoint does that; the socket of one rank does not.
    """
    for size, words in (("tp_size", "tensor"), ("pp_size", "pipeline"), ("dp_size", "data")):
        ranks = _size(args, size)
        if ranks > 1:
            return f"{words} parallel, {ranks} ranks: only {NATIVE_ENDPOINT} reaches all of them"
    return None


def socket_path(path: str, rank: int) -> str:
    """The socket of a data-parallel rank: ``path`` for rank 0, ``path.N`` for rank N."""
    return f"{path}.{rank}" if rank else path
