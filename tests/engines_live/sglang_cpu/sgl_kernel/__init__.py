"""Stands in for SGLang's native kernels on a CPU without AMX, for the tests alone.

SGLang imports names from ``sgl_kernel`` while it loads and calls nearly none of them when every
layer takes its native torch path. So each name is there; what n-gram speculation calls works, in
plain torch; anything else says which kernel it was and fails.
"""

from __future__ import annotations

from typing import Any, NoReturn

from sgl_kernel.speculative import (
    assign_extend_cache_locs_cpu,
    assign_req_to_token_pool_cpu,
    copy_all_layer_kv_cache_cpu,
    fill_accept_out_cache_loc_cpu,
    fill_bonus_tokens_cpu,
    verify_tree_greedy_cpu,
)

__version__ = "0"
__all__ = [
    "assign_extend_cache_locs_cpu",
    "assign_req_to_token_pool_cpu",
    "copy_all_layer_kv_cache_cpu",
    "fill_accept_out_cache_loc_cpu",
    "fill_bonus_tokens_cpu",
    "verify_tree_greedy_cpu",
]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def kernel(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} has no stand-in on a CPU")

    return kernel
