"""What vLLM's log tells: how far a start has come, and why one failed.

Each pattern matches within one line, and what it skips is bounded: a log line may be a megabyte
long, and of somebody's making. Those marked "recorded" were seen in a log, the others are
written after the text in vLLM's, PyTorch's or Hugging Face's source.
"""

from __future__ import annotations

import re

from llmtop.engines.adapter import FailurePattern, Phase

# "ready" is no phase of these: that is the server's own answer on our port.
PHASES = (
    Phase("configuring", re.compile(r"non-default args:")),
    Phase("engine process", re.compile(r"Initializing a V1 LLM engine")),
    Phase(
        "weights",
        re.compile(r"Starting to load model|Loading model from scratch|checkpoint shards:"),
    ),
    # Loading takes seconds, and 7 to 12 more pass before the next line (H200, 0.26).
    Phase("profiling", re.compile(r"Model loading took")),
    Phase(
        "compile",
        re.compile(
            r"Warming up model for the compilation|"
            r"Using cache directory: \S{1,400}torch_compile_cache"
        ),
    ),
    Phase(
        "KV cache",
        re.compile(
            r"Available KV cache memory:|KV cache size:|Explicitly set .{1,60} for KV cache"
        ),
    ),
    Phase("CUDA graphs", re.compile(r"Capturing CUDA graphs")),
    Phase("warm-up", re.compile(r"Graph capturing finished")),
    Phase("API server", re.compile(r"init engine \(profile, create kv cache, warmup model\) took")),
)


# What a start reports of its memory, GiB. The two summaries: 0.26 (recorded) and 0.32 (source).
MEMORY = (
    re.compile(r"Model loading took (?P<weights>[\d.]{1,12}) GiB"),
    re.compile(r"Available KV cache memory: (?P<kv>[\d.]{1,12}) GiB"),
    re.compile(r"reserved (?P<kv>[\d.]{1,12}) GiB memory for KV Cache"),
    re.compile(r"Graph capturing finished in .{1,40}, took (?P<graphs>[\d.]{1,12}) GiB"),
    re.compile(
        r"Free memory on device \S{0,20} ?\([\d.]{1,12}/(?P<total>[\d.]{1,12}) GiB\) on startup\. "
    ),
    re.compile(
        r"Actual usage is (?P<weights>[\d.]{1,12}) GiB for weight, "
        r"(?P<activations>[\d.]{1,12}) GiB for peak activation, "
        r"(?P<runtime>[\d.]{1,12}) GiB for non-torch memory"
    ),
    re.compile(
        r"Actual usage is (?P<consumed>[\d.]{1,12}) GiB for consumed memory .{1,40}, "
        r"(?P<activations>[\d.]{1,12}) GiB for peak activation"
    ),
)


_CONFIG = r"Initializing a V1 LLM engine .{1,3000}?, "

# What it decided for options that the arguments left open. "Desired ... utilization" comes from
# GPUs alone. Recorded: all but "disabled" (source).
EFFECTIVE = (
    re.compile(_CONFIG + r"max_seq_len=(?P<max_model_len>\d{1,12}),"),
    re.compile(_CONFIG + r"tensor_parallel_size=(?P<tensor_parallel_size>\d{1,6}),"),
    # The word None is what vLLM itself calls it, and takes.
    re.compile(_CONFIG + r"quantization=(?P<quantization>[\w-]{1,40}),"),
    re.compile(_CONFIG + r"enforce_eager=(?P<enforce_eager>True|False),"),
    re.compile(_CONFIG + r"kv_cache_dtype=(?P<kv_cache_dtype>\w{1,40}),"),
    re.compile(_CONFIG + r"enable_prefix_caching=(?P<enable_prefix_caching>True|False),"),
    re.compile(r"Asynchronous scheduling is (?P<async_scheduling>enabled|disabled)\."),  # 0.26
    re.compile(r"Async scheduling .{1,160}?\b(?:will be|is) (?P<async_scheduling>disabled)\b"),
    re.compile(r"Desired GPU memory utilization is \((?P<gpu_memory_utilization>[\d.]{1,12}), "),
)


# The order matters: the first that matches anywhere wins, so effects come after their causes.
FAILURES = (
    # What was asked for. Recorded: all but the gated, offline, parallel and quantisation ones.
    FailurePattern(
        r"error: unrecognized arguments: (?P<arguments>[^\n]{1,200})",
        "vLLM does not know the argument {arguments}",
        "check it against `vllm serve --help=all`; flags come and go between versions",
    ),
    FailurePattern(
        r"error: argument --speculative-config\S{0,20}: [^\n]{1,120}? cannot be converted",
        "--speculative-config is not valid JSON",
        "give one JSON object, quoted for the shell: "
        '\'{{"method": "ngram", "num_speculative_tokens": 4}}\'',
    ),
    FailurePattern(
        r"error: argument (?P<flag>-[\w./-]{1,80}): (?P<what>[^\n]{1,200})",
        "vLLM refused the argument {flag}: {what}",
        "check it against `vllm serve --help=all`",
    ),
    FailurePattern(
        r"validation errors? for SpeculativeConfig",
        "the speculative decoding configuration was refused",
        "the lines after it in the log name the key; methods are ngram, draft_model, eagle3, ...",
    ),
    FailurePattern(
        r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len "
        r"\(\w+=(?P<most>\d+)",
        "--max-model-len {asked} is more than the {most} tokens that this model was made for",
        "lower --max-model-len to {most} or leave it out",
    ),
    FailurePattern(
        r"max_num_batched_tokens \((?P<tokens>\d+)\) must be greater than or equal to "
        r"max_num_seqs \((?P<seqs>\d+)\)",
        "--max-num-batched-tokens {tokens} is less than --max-num-seqs {seqs}",
        "each running request takes a token of each step: raise the one or lower the other",
    ),
    FailurePattern(
        r"Repo id must be in the form .{0,80}?: '(?P<model>[^'\n]{1,200})'",
        "there is no model at {model}",
        "the path does not exist on this machine; give a folder with a config.json, or a hub name",
    ),
    FailurePattern(
        r"Invalid repository ID or local directory specified: ?'(?P<model>[^'\n]{1,200})'",
        "{model} is no model folder and no name on the hub",
        "a model folder holds a config.json",
    ),
    FailurePattern(
        r"GatedRepoError|trying to access a gated repo",
        "this model is gated: its owner must grant access first",
        "ask for access on the model's page, then set HF_TOKEN for the engine",
    ),
    FailurePattern(
        r"(?<![\w./-])(?P<model>[\w./-]{1,120}) is not a local folder and is not a valid model",
        "the hub knows no model {model}, or does not show it to you",
        "check the name; a private model needs HF_TOKEN",
    ),
    FailurePattern(
        r"We couldn't connect to 'https?://|outgoing traffic has been disabled",
        "the model is not on this machine and the hub could not be reached",
        "download it first, or check the network and HF_HUB_OFFLINE",
    ),
    FailurePattern(
        r"Model architectures (?P<architectures>\[[^\]\n]{1,120}\]) are not supported",
        "this vLLM does not support the architecture {architectures}",
        "a newer vLLM may",
    ),
    FailurePattern(
        r"World size \((?P<asked>\d+)\) is larger than the number of available GPUs "
        r"\((?P<found>\d+)\)",
        "the model is to be split over {asked} GPUs and there are {found}",
        "lower --tensor-parallel-size, or give more GPUs",
    ),
    FailurePattern(
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size "
        r"\((?P<size>\d+)\)",
        "{heads} attention heads cannot be split over {size} GPUs",
        "choose a --tensor-parallel-size that divides {heads}",
    ),
    FailurePattern(
        r"\[Errno 98\][^\n]{0,120}[Aa]ddress already in use",
        "the port is already in use",
        "choose another port, or end what holds it",
    ),
    # Memory. Recorded: KV too small, no blocks, and the one on CPU.
    FailurePattern(
        r"memory on (?:device|node) ?\S{0,40} ?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on "
        r"startup is less than desired \w+ memory utilization "
        r"\((?P<share>[\d.]+), (?P<asked>[\d.]+) GiB\)",
        "{asked} GiB of memory are wanted and {free} of {total} GiB are free",
        "something else holds the rest: end it, or lower --gpu-memory-utilization from {share}",
    ),
    FailurePattern(
        r"No available memory for the cache blocks",
        "the weights left no memory for the KV cache",
        "raise --gpu-memory-utilization, split the model over more GPUs, or quantise it",
    ),
    FailurePattern(
        r"max seq len \((?P<length>\d+)\), \(?(?P<asked>[\d.]+) GiB KV cache is needed, which is "
        r"larger than the available KV cache memory \((?P<free>[\d.]+) GiB\)",
        "the KV cache cannot hold even one request of {length} tokens",
        "lower --max-model-len, or raise --gpu-memory-utilization",
    ),
    FailurePattern(
        r"Available memory on node \d+ \((?P<free>[\d.]+)/[\d.]+ GiB\) on kv cache allocation is "
        r"less than requested memory for kv \((?P<asked>[\d.]+) GiB\)",
        "the KV cache is to take {asked} GiB and {free} GiB are free",
        "lower --kv-cache-memory-bytes or VLLM_CPU_KVCACHE_SPACE",
    ),
    FailurePattern(
        r"CUDA out of memory occurred when warming up sampler with (?P<seqs>\d+) dummy requests",
        "out of GPU memory while warming up with {seqs} requests",
        "lower --max-num-seqs or --gpu-memory-utilization",
    ),
    FailurePattern(
        r"torch\.(?:cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory",
        "out of GPU memory",
        "lower --gpu-memory-utilization or --max-num-seqs, or see who else is on the GPU",
    ),
    # The machine.
    FailurePattern(
        r"NVIDIA driver on your system is too old",
        "the NVIDIA driver is too old for the CUDA that this vLLM was built with",
        "update the driver, or use a vLLM built for an older CUDA",
    ),
    FailurePattern(
        r"Failed to infer device type|No CUDA GPUs are available",
        "vLLM found no GPU that it can use",
        "is the driver loaded (nvidia-smi), and does CUDA_VISIBLE_DEVICES name GPUs that exist?",
    ),
    FailurePattern(
        r"NCCL error|ncclUnhandledCudaError|ncclSystemError|ncclInternalError|ncclRemoteError",
        "the GPUs could not talk to each other (NCCL)",
        "run again with NCCL_DEBUG=INFO; in a container check --shm-size and --ipc=host",
    ),
    FailurePattern(
        r"No package metadata was found for vllm",
        "this Python environment has vLLM's files but not its package",
        "install vllm in it again, or choose another with --python or --bin",
    ),
    FailurePattern(  # recorded; reported or left uncaught, since optional imports fail unharmed
        r"(?m)(?:ERROR [^\n]{1,120}\b|^)ModuleNotFoundError: "
        r"No module named '(?P<module>[\w.]{1,100})'",
        "the Python module {module} is missing",
        "install it in vLLM's environment, or leave out the flag that asks for it",
    ),
    # Effects, when no cause above was found.
    FailurePattern(
        r"Worker proc \S{1,80} died unexpectedly",
        "one of the engine's worker processes died",
        "the kernel's out-of-memory killer leaves a line in dmesg; else see the log before this",
    ),
    FailurePattern(
        r"EngineDeadError|Engine core proc \S{1,80} died unexpectedly|EngineCore encountered an",
        "the engine core died",
        "see the last traceback of (EngineCore ...) in the log",
    ),
    FailurePattern(  # recorded
        r"Engine core initialization failed",
        "the engine core did not start",
        "see the first traceback of (EngineCore ...) or (Worker ...) in the log",
    ),
)
