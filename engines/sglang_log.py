"""What SGLang's log tells: how far a start has come, and why one failed.

Each pattern matches within one line. Those marked "recorded" were seen in a log of 0.5.16 on a GPU,
or of 0.5.21 or 0.5.23 on a CPU; the others are written after the text in SGLang's, PyTorch's or
Hugging Face's source.
"""

from __future__ import annotations

import re

from llmtop.engines.adapter import FailurePattern, Phase

# "ready" is no phase of these: that is the server's own answer on our port. The log's "fired up and
# ready to roll" also comes when the port was taken and another server there answered the warm-up.
PHASES = (
    Phase("configuring", re.compile(r"\bserver_args=")),
    Phase("scheduler process", re.compile(r"Init (?:torch distributed|parallel) begin")),
    Phase(
        "weights",
        re.compile(r"Load weight begin|shards: .{0,80}?\b(?P<done>\d+)/(?P<total>\d+) \["),
    ),
    Phase("KV cache", re.compile(r"Load weight end|KV Cache is allocated|Memory pool end")),
    Phase(
        "CUDA graphs",
        re.compile(
            r"Capture [\w ]{0,40}(?i:cuda graph) begin"
            r"|Capturing (?:num tokens|batches) .{0,120}?\b(?P<done>\d+)/(?P<total>\d+) \["
        ),
    ),
    Phase("API server", re.compile(r"max_total_num_tokens=\d+, chunked_prefill_size=")),
    Phase("warm-up", re.compile(r"Uvicorn running on")),
)


def _argument(name: str, value: str) -> re.Pattern[str]:
    # A call up to 0.5.16, a dict in 0.5.21 and later.
    return re.compile(
        rf"\bserver_args=.{{1,3900}}?(?:, {name}=|, '{name}': )'?(?P<{name}>{value})'?[,)}}]"
    )


# What it decided for options that the arguments left open. Recorded.
EFFECTIVE = (
    _argument("mem_fraction_static", r"[\d.]{1,20}"),
    _argument("chunked_prefill_size", r"-?\d{1,12}"),
    _argument("max_prefill_tokens", r"\d{1,12}"),
    _argument("schedule_policy", r"[\w-]{1,40}"),
    _argument("quantization", r"(?!None)[\w-]{1,40}"),
    _argument("kv_cache_dtype", r"\w{1,40}"),
    _argument("disable_radix_cache", r"True|False"),
    _argument("disable_overlap_schedule", r"True|False"),
    re.compile(
        r"max_total_num_tokens=\d+, .{0,200}?max_running_requests=(?P<max_running_requests>\d+), "
        r"context_len=(?P<context_length>\d+)"
    ),
)


# The order matters: the first that matches anywhere wins, so effects come after their causes.
# What a start reports of its memory; its GB are GiB (2^30 bytes). Recorded with 0.5.16 on an H200.
MEMORY = (
    re.compile(r"Load weight end\..{1,300}? mem usage=(?P<weights>[\d.]{1,12}) GB"),
    re.compile(
        r"KV Cache is allocated\..{1,120}? K size: (?P<keys>[\d.]{1,12}) GB, "
        r"V size: (?P<values>[\d.]{1,12}) GB"
    ),
    re.compile(r"prefill CUDA graph end\..{1,60}? mem usage=(?P<prefill_graphs>[\d.]{1,12}) GB"),
    re.compile(r"decode CUDA graph end\..{1,60}? mem usage=(?P<decode_graphs>[\d.]{1,12}) GB"),
)

FAILURES = (
    # What was asked for.
    FailurePattern(  # recorded
        r"error: unrecognized arguments: (?P<arguments>[^\n]{1,200})",
        "SGLang does not know the argument {arguments}",
        "check it against `sglang serve --help`; flags come and go between versions",
    ),
    FailurePattern(  # recorded
        r"error: argument (?P<flag>-[\w./-]{1,80}): (?P<what>[^\n]{1,200})",
        "SGLang refused the argument {flag}: {what}",
        "check it against `sglang serve --help`",
    ),
    FailurePattern(  # recorded
        r"Repo id must be in the form .{0,80}?: '(?P<model>[^'\n]{1,200})'",
        "there is no model at {model}",
        "the path does not exist on this machine; give a folder with a config.json, or a hub name",
    ),
    FailurePattern(
        r"GatedRepoError|trying to access a gated repo",
        "this model is gated: its owner must grant access first",
        "ask for access on the model's page, then set HF_TOKEN for the engine",
    ),
    FailurePattern(
        r"(?P<model>[\w./-]{1,120}) is not a local folder and is not a valid model identifier",
        "the hub knows no model {model}, or does not show it to you",
        "check the name; a private model needs HF_TOKEN",
    ),
    FailurePattern(
        r"We couldn't connect to 'https?://|outgoing traffic has been disabled",
        "the model is not on this machine and the hub could not be reached",
        "download it first, or check the network and HF_HUB_OFFLINE",
    ),
    FailurePattern(
        r"Model architectures (?P<architectures>\[[^\]\n]{1,120}\]) (?:are not supported|failed)",
        "this SGLang does not support the architecture {architectures}",
        "a newer SGLang may",
    ),
    FailurePattern(
        r"context_length \((?P<asked>\d+)\) is greater than the derived context_length "
        r"\((?P<most>\d+)\).{0,400}?To allow overriding",
        "--context-length {asked} is more than the {most} tokens that this model was made for",
        "lower --context-length to {most} or leave it out",
    ),
    FailurePattern(
        r"AssertionError: chunked_prefill_size must be divisible by page_size",
        "--chunked-prefill-size is not a multiple of --page-size",
        "choose a multiple",
    ),
    FailurePattern(  # recorded
        r"Error: Unknown speculative algorithm name: (?P<name>[^\n]{1,80})",
        "SGLang knows no speculative algorithm {name}",
        "there are EAGLE, EAGLE3, NEXTN, STANDALONE, NGRAM and, in newer versions, more",
    ),
    FailurePattern(  # recorded
        r"ValueError: (?P<what>\w{1,40} is not supported in \w{1,20} attention backend \w{1,40})",
        "{what}",
        "choose another --attention-backend, or leave that flag out",
    ),
    FailurePattern(  # recorded
        r"\[Errno 98\][^\n]*[Aa]ddress already in use",
        "the port is already in use",
        "choose another port, or end what holds it",
    ),
    # Memory.
    FailurePattern(  # recorded
        r"leave no GPU memory for the KV cache under --mem-fraction-static=(?P<share>[\d.e-]+)\.",
        "the weights left no memory for the KV cache (--mem-fraction-static {share})",
        "raise --mem-fraction-static, split the model over more GPUs, or quantise it",
    ),
    FailurePattern(
        r"Not enough memory\. Please try to increase --mem-fraction-static"
        r"(?:\. Current value: mem_fraction_static=(?P<share>\d[\d.]{0,20}))?",
        "the weights left no memory for the KV cache (--mem-fraction-static {share})",
        "raise --mem-fraction-static, split the model over more GPUs, or quantise it",
    ),
    FailurePattern(
        r"memory capacity is unbalanced\. Some GPUs may be occupied by other processes",
        "something else holds memory on one of the GPUs",
        "see who it is and end it, or choose other GPUs",
    ),
    FailurePattern(
        r"(?:Exception|Error): Capture (?:\w+ )?(?i:cuda graph) failed: (?P<what>[^\n]{1,200})",
        "the CUDA graphs could not be captured: {what}",
        "lower --mem-fraction-static to leave them room, or --cuda-graph-max-bs, "
        "or do without by --disable-cuda-graph",
    ),
    FailurePattern(
        r"(?P<stage>Prefill|Decode) out of memory\. Try to lower your batch size",
        "the KV cache had no room left ({stage})",
        "lower --max-running-requests or --chunked-prefill-size",
    ),
    FailurePattern(
        r"torch\.(?:cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory",
        "out of GPU memory",
        "lower --mem-fraction-static or --max-running-requests, or see who else is on the GPU",
    ),
    # The machine.
    FailurePattern(
        r"NVIDIA driver on your system is too old",
        "the NVIDIA driver is too old for the CUDA that this SGLang was built with",
        "update the driver, or use an SGLang built for an older CUDA",
    ),
    FailurePattern(
        r"invalid device ordinal",
        "the model is to be split over more GPUs than there are",
        "lower --tp-size, or give more GPUs",
    ),
    FailurePattern(
        r"No CUDA GPUs are available|Found no NVIDIA driver|No accelerator \(CUDA",
        "SGLang found no GPU that it can use",
        "is the driver loaded (nvidia-smi), and does CUDA_VISIBLE_DEVICES name GPUs that exist?",
    ),
    FailurePattern(
        r"NCCL error|ncclUnhandledCudaError|ncclSystemError|ncclInternalError|ncclRemoteError",
        "the GPUs could not talk to each other (NCCL)",
        "run again with NCCL_DEBUG=INFO; in a container check --shm-size and --ipc=host",
    ),
    # Effects, when no cause above was found. That a child failed is told too, and left out here:
    # the child's own traceback says more.
    FailurePattern(  # recorded
        r"Subprocess (?P<who>\w{1,40}) \(pid=\d+\) crashed with exit code -9\b",
        "its process {who} was killed, perhaps by the kernel's out-of-memory killer",
        "look into the kernel's log (dmesg) and leave more main memory free",
    ),
    FailurePattern(
        r"Subprocess (?P<who>\w{1,40}) \(pid=\d+\) crashed with exit code -(?P<number>\d{1,3})\b",
        "its process {who} was ended by signal {number}",
        "11 and 6 are faults in native code: see the lines before it in the log",
    ),
)
