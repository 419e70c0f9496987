"""The meaning of each number on the screen, its source, and its caveats."""

from __future__ import annotations

NUMBERS: tuple[tuple[str, str], ...] = (
    (
        "run",
        "requests in the batch now / max_num_seqs in force. The engine's gauge. Caveat: it is "
        "sampled once per refresh, and an engine that hangs shows its last value.",
    ),
    (
        "wait",
        "requests queued in the engine. Engine's gauge. Caveat: sampled, so a short queue is "
        "missed; and requests in the network or in the server's front end are not counted.",
    ),
    (
        "oldest",
        "age of our oldest request without a first token, measured here. It grows while p95 still "
        "looks good, because p95 counts only requests that got their first token.",
    ),
    (
        "cap",
        "batch limit: the current max_num_seqs, reported by the engine.",
    ),
    (
        "queue limit",
        "the current max_queued_requests. When so many requests wait, a new one is refused with "
        "status 503. Broken line in the queue chart. A hold changes it with the load.",
    ),
    (
        "KV",
        "share of KV-cache blocks in use. Engine's gauge. Tokens are share x capacity, rounded to "
        "blocks. Caveat: blocks that are only kept for reuse count as free.",
    ),
    (
        "prefix hit",
        "tokens found in the prefix cache / tokens looked up, over the window; engine's counters. "
        "Caveat: a test that repeats prompts hits more often than users do.",
    ),
    (
        "preempted",
        "requests put back into the queue in the window because KV blocks ran out; their work is "
        "repeated. Engine's counter, without requests that you evicted.",
    ),
    (
        "TTFT",
        "prompt sent to first token. client: measured here, with network and queue; in an open "
        "loop from the scheduled time of sending. Caveat: under overload, see oldest.",
    ),
    (
        "server p95",
        "measured by the engine. Its histogram has wide buckets, so often only a range is known: "
        "5-10s is more than 5 s and at most 10 s. 412ms±1%: exact to 1 %, of engines that llmtop "
        "started. It needs n=20 (p99: 100). Caveat: it does not "
        "include the queue in front of the server.",
    ),
    (
        "mean",
        "beside the server's p95: sum of all observations in the window / their number. Exact.",
    ),
    (
        "<300ms",
        "below the first bucket's bound. >80s: above the last one. The buckets show no more.",
    ),
    (
        "n=214/10s",
        "observations behind a percentile, and the window. Caveat: a p99 of fewer than a few "
        "hundred is hardly more than the maximum.",
    ),
    (
        "tok/s",
        "generated tokens a second, from the engine's counter over the window. Caveat: engines "
        "prefill and decode in waves, so 3 seconds differ from 30.",
    ),
    ("decode", "the same as tok/s; named so where prefill stands beside it."),
    ("prefill", "prompt tokens per second that the engine processes before first tokens."),
    (
        "TPOT",
        "(end to end - TTFT) / (tokens - 1), one value a request, measured here. Caveat: one long "
        "gap disappears in the mean of its request.",
    ),
    (
        "ITL",
        "gap between two chunks of a stream. Caveat: with speculation several tokens share a gap.",
    ),
    ("accepted", "draft tokens that the model kept / tokens drafted, over the window."),
    (
        "tok/step",
        "tokens that one step gives each request with speculation: 1 + accepted tokens per draft. "
        "by position: share kept at each position of the draft.",
    ),
    (
        "tok/J",
        "generated tokens / energy by NVML's counter, last minute. Caveat: NVML counts whole GPUs, "
        "with the work of other processes.",
    ),
    ("$/M tok", "--gpu-hour / tokens that the engine generates per hour, from the last minute."),
    (
        "idle",
        "share of GPU time without any kernel, from NVML. Caveat: a busy GPU may be used "
        "inefficiently.",
    ),
    ("KV never used", "KV memory above the highest use since llmtop started to watch."),
    ("asked", "what the shape of the load requires now: streams, or requests per second."),
    ("got", "streams that have their first token, or finished requests per second."),
    ("in flight", "requests of our load that were sent and have not ended yet."),
    ("first token awaited", "those of them without a first token: queued, or in prefill."),
    (
        "ok, failed, cut",
        "requests that succeeded, failed, or were stopped by llmtop. Counted here.",
    ),
    (
        "client",
        "whether the load generator kept up. If not (client-bound), latencies include its delay.",
    ),
    (
        "lag",
        "delay of llmtop in reading a token: its clock minus the kernel's receive timestamp.",
    ),
    (
        "memory",
        "weights, KV, graphs, activations: from the engine's start-up log. Used, free, others: "
        "NVML. Caveat: activations are a peak and not held all the time.",
    ),
    (
        "util",
        "share of time in which some kernel ran, from NVML. Caveat: near 100% even at one "
        "stream. See power.",
    ),
    (
        "power",
        "NVML, mean of about a second. cap: the driver lowers the clocks to keep the power limit.",
    ),
    ("HEADROOM", "requests start at once; the batch limit and the KV cache are not close to full."),
    (
        "NEAR KNEE",
        "the batch or the KV cache is above 85%, a queue comes and goes, or more load adds few "
        "tok/s.",
    ),
    (
        "SATURATED",
        "requests wait in most of the last 5 s, requests are preempted, or more load adds no "
        "tok/s.",
    ),
    ("OVERLOADED", "the queue grows, or it is longer than the batch. Caveat: a burst may do it."),
    ("HUNG", "requests run and no number moves."),
    ("--", "not known. 0 is a real zero."),
    ("stale", "the engine does not answer: the numbers are the last known ones."),
    ("simulated", "numbers from a model of an engine, not from an engine or a GPU."),
    ("live", "of options: applies at the next step. restart: asks, then restarts the engine."),
)
