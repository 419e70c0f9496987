"""Causes of failure that only SGLang reports: its limits, with flag and value.

Patterns marked "recorded" were seen in a log of 0.5.16 on a GPU, or of 0.5.21 or 0.5.23 on a CPU.
The others follow the text in SGLang's source or in public reports. Messages that any engine can
write are in the tables of ``failures``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from llmtop.engines.core.adapter import FailurePattern
from llmtop.engines.failures.machine_causes import any_of

WORDS: Mapping[str, str] = MappingProxyType(
    {
        "engine": "SGLang",
        "memory": "--mem-fraction-static",
        "batch": "--max-running-requests",
        "context": "--context-length",
        "parallel": "--tp-size",
        "remote_code": "--trust-remote-code",
        "dtype_half": "--dtype half",
        "dtype_flag": "--dtype",
        "eager": "--disable-cuda-graph",
        "internal_port": "--nccl-port, --dist-init-addr",
        "host_memory": "--cpu-offload-gb, --tp-size",
        "cache": "HF_HOME",
        "no_nvcc": ": --attention-backend triton --sampling-backend pytorch",
        "no_ray": "SGLang without --use-ray",
        "no_custom_reduce": "--disable-custom-all-reduce",
        "spawn": "the start method spawn",
        "watchdog": "--watchdog-timeout",
    }
)

FAILURES = (
    FailurePattern(  # recorded
        r"error: unrecognized arguments: (?P<arguments>[^\n]{1,200})",
        "SGLang does not know the argument {arguments}",
        "check it against `sglang serve --help`; flags differ between versions",
    ),
    FailurePattern(  # recorded
        r"error: argument (?P<flag>-[\w./-]{1,80}): (?P<what>[^\n]{1,200})",
        "SGLang refused the argument {flag}: {what}",
        "check it against `sglang serve --help`",
    ),
    FailurePattern(
        r"sgl_kernel\] CRITICAL: Could not load any common_ops library[\s\S]{0,4000}?"
        r"(?P<lib>[\w.+-]{1,80}\.so[\w.]{0,20}): cannot open shared object",
        "sgl_kernel does not load: the library {lib} is missing (it was built for another CUDA)",
        "reinstall sgl-kernel for this CUDA version, or install the package that has {lib}",
    ),
    FailurePattern(
        r"sgl_kernel\] CRITICAL: Could not load any common_ops library[\s\S]{0,4000}?"
        r"undefined symbol: (?P<symbol>\w{1,160})",
        "sgl_kernel does not load: it does not fit this PyTorch (undefined symbol {symbol})",
        "reinstall sgl-kernel and torch in the versions that this SGLang asks for",
    ),
    FailurePattern(
        r"Model architectures (?P<architectures>\[[^\]\n]{1,120}\]) failed",
        "this SGLang does not support the architecture {architectures}",
        "a newer SGLang may support it",
    ),
    FailurePattern(
        r"context_length \((?P<asked>\d{1,12})\) is greater than the derived context_length "
        r"\((?P<most>\d{1,12})\)[^\n]{0,400}?To allow overriding",
        "--context-length {asked} is more than this model's limit of {most} tokens",
        "lower --context-length to {most} or omit it",
    ),
    FailurePattern(
        r"chunked_prefill_size must be divisible by page_size",
        "--chunked-prefill-size is not a multiple of --page-size",
        "choose a multiple",
    ),
    FailurePattern(  # recorded
        r"Unknown speculative algorithm name: (?P<name>[^\n]{1,80})",
        "SGLang does not know the speculative algorithm {name}",
        "it knows EAGLE, EAGLE3, NEXTN, STANDALONE, NGRAM; newer versions know more",
    ),
    FailurePattern(  # recorded
        r"ValueError: (?P<what>\w{1,40} is not supported in \w{1,20} attention backend \w{1,40})",
        "{what}",
        "choose another --attention-backend, or omit that flag",
    ),
    FailurePattern(
        r"(?P<what>LoRA[^\n]{0,80}(?:rank|target)[^\n]{0,160})",
        "a LoRA adapter does not fit the server: {what}",
        "raise --max-lora-rank, or name the layers in --lora-target-modules",
    ),
    # Memory.
    FailurePattern(  # recorded
        r"leave no GPU memory for the KV cache under --mem-fraction-static=(?P<share>[\d.e-]{1,20})"
        r"\. Raise --mem-fraction-static above (?P<least>[\d.e-]{1,20})\s",
        "the weights left no memory for the KV cache (--mem-fraction-static {share})",
        "raise --mem-fraction-static above {least}, split the model over more GPUs, or quantise it",
    ),
    FailurePattern(
        r"Not enough memory\. Please try to increase --mem-fraction-static"
        r"[\s.:]{0,4}Current value: (?:mem_fraction_static=)?(?P<share>\d[\d.]{0,20})",
        "the weights left no memory for the KV cache (--mem-fraction-static {share})",
        "raise --mem-fraction-static, split the model over more GPUs, or quantise it",
    ),
    *any_of(
        "the weights left no memory for the KV cache",
        "raise --mem-fraction-static, split the model over more GPUs, or quantise it",
        r"leave no GPU memory for the KV cache",
        r"Not enough memory\. Please try to increase --mem-fraction-static",
    ),
    *any_of(
        "the state cache of the Mamba layers has no room left",
        "raise --mem-fraction-static or --mamba-full-memory-ratio, or lower --max-running-requests",
        r"Not enough (?:GPU memory for hybrid|space for mamba)",
        r"linear-attention\) state cache is too small",
    ),
    FailurePattern(
        r"memory capacity is unbalanced\. Some GPUs may be occupied by other processes",
        "another process holds memory on one of the GPUs",
        "find it with `llmtop doctor` and end it, or choose other GPUs",
    ),
    FailurePattern(
        r"(?:Exception|Error): Capture (?:\w{1,20} )?(?i:cuda graph) failed: "
        r"(?P<what>[^\n]{1,200})",
        "the CUDA graphs could not be captured: {what}",
        "lower --mem-fraction-static to leave memory for them, or --cuda-graph-max-bs, "
        "or disable them with --disable-cuda-graph",
    ),
    FailurePattern(
        r"(?P<stage>Prefill|Decode) out of memory\. Try to lower your batch size",
        "the KV cache had no room left ({stage})",
        "lower --max-running-requests or --chunked-prefill-size",
    ),
    FailurePattern(
        r"FlashInfer Internal Error: out of memory",
        "FlashInfer's workspace is too small for this batch",
        "raise SGLANG_FLASHINFER_WORKSPACE_SIZE, or lower --max-running-requests",
    ),
    FailurePattern(
        r"alloc_req_slots runs out of memory",
        "there were more running requests than slots for them",
        "lower --max-running-requests",
    ),
)
