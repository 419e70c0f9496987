"""Lets SGLang's plain torch attention verify drafts, so that n-gram speculation runs on a CPU.

A plugin of the group ``sglang.srt.plugins``, for the tests alone. The backend knows prefill and
decode; verifying a chain of n drafted tokens is a prefill of n tokens behind what is cached.
"""

from __future__ import annotations

from typing import Any

TARGET = "sglang.srt.layers.attention.torch_native_backend.TorchNativeAttnBackend.forward_extend"


def verify_as_prefill(
    forward_extend: Any,
    backend: Any,
    q: Any,
    k: Any,
    v: Any,
    layer: Any,
    batch: Any,
    *rest: Any,
    **named: Any,
) -> Any:
    """Around ``forward_extend``: describe a verification the way a prefill is described."""
    if not batch.forward_mode.is_target_verify() or batch.extend_seq_lens is not None:
        return forward_extend(backend, q, k, v, layer, batch, *rest, **named)
    cached = batch.seq_lens
    drafted = q.shape[0] // cached.shape[0]
    batch.extend_prefix_lens = cached
    batch.extend_seq_lens = cached.new_full(cached.shape, drafted)
    batch.seq_lens = cached + drafted
    try:
        return forward_extend(backend, q, k, v, layer, batch, *rest, **named)
    finally:
        batch.seq_lens = cached
        batch.extend_prefix_lens = batch.extend_seq_lens = None


def register() -> None:
    """The entry point."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(TARGET, verify_as_prefill, HookType.AROUND)
