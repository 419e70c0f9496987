"""What each number on the screen means, where it comes from, and when it lies."""

from __future__ import annotations

NUMBERS: tuple[tuple[str, str], ...] = (
    (
        "run",
        "requests in the batch now / max_num_seqs in force. From the engine's gauge. Lies: it is "
        "one moment of each beat, and an engine that is stuck shows its last one.",
    ),
    (
        "wait",
        "requests queued in the engine. Engine's gauge. Lies: sampled, so a short queue is missed; "
        "and what waits in the network or the server's front end is not in it.",
    ),
    (
        "oldest",
        "age of our oldest request without a first token, measured here. It grows while p95 still "
        "looks well, because p95 knows only of requests that got theirs.",
    ),
    (
        "cap",
        "how many requests may be in the batch: max_num_seqs as it is now, from the engine itself.",
    ),
    (
        "KV",
        "share of KV-cache blocks in use. Engine's gauge. Tokens are share x capacity, so rounded "
        "to blocks. Lies: blocks that are only kept for reuse count as free.",
    ),
    (
        "prefix hit",
        "tokens found in the prefix cache / tokens looked up, over the window; engine's counters. "
        "Lies: equal prompts of a test hit more than users will.",
    ),
    (
        "preempted",
        "requests put back in the window because KV blocks ran out; their work is done anew. "
        "Engine's counter; what you evicted yourself is not counted.",
    ),
    (
        "TTFT",
        "prompt sent to first token. client: measured here, with network and queue; in an open "
        "loop from the moment it should have been sent. Lies: under overload, see oldest.",
    ),
    (
        "server p95",
        "the engine's own, interpolated in its histogram's buckets, so only as fine as they are. "
        "Lies: the queue in front of the server is not in it.",
    ),
    ("<300ms", "all that the buckets can tell: below the first bound. >80s: beyond the last one."),
    (
        "n=214/10s",
        "observations behind a percentile, and the window. Lies: a p99 of fewer than some hundred "
        "is little more than the maximum.",
    ),
    (
        "tok/s",
        "generated tokens a second, from the engine's counter over the window. Lies: engines "
        "prefill and decode in waves, so three seconds are not thirty.",
    ),
    ("decode", "the same, where prefill stands beside it."),
    ("prefill", "prompt tokens a second that the engine reads before a first token."),
    (
        "TPOT",
        "(end to end - TTFT) / (tokens - 1), one value a request, measured here. Lies: one long "
        "gap disappears in the mean of its request.",
    ),
    (
        "ITL",
        "gap between two pieces of a stream. Lies: with speculation several tokens share one gap.",
    ),
    ("accepted", "draft tokens that the model kept / tokens drafted, over the window."),
    (
        "tok/step",
        "tokens a step brings each request with speculation: 1 + accepted a draft. by position: "
        "kept so far into the draft.",
    ),
    (
        "tok/J",
        "generated tokens over NVML's energy counter, last minute. Lies: NVML counts whole GPUs, "
        "so what others do on them too.",
    ),
    ("$/M tok", "--gpu-hour over what the engine generated an hour, from its last minute."),
    (
        "idle",
        "share of GPU time without any kernel, from NVML. Lies: a busy GPU can be badly used.",
    ),
    ("KV never used", "KV memory above the highest occupancy seen since llmtop watches."),
    ("asked", "what the load's shape calls for now: streams, or requests a second."),
    ("got", "streams past their first token, or requests done a second: beside what was asked."),
    ("in flight", "requests of our load that were sent and have not ended."),
    ("first token awaited", "those of them without a first token: queued, or in prefill."),
    ("ok, failed, cut", "requests that ended well, ended badly, were ended by us. Counted here."),
    (
        "client",
        "whether the load generator kept up; when it did not, its latencies are not the engine's.",
    ),
    (
        "lag",
        "how late we read a token: our clock minus the kernel's receive stamp. Not the engine's.",
    ),
    (
        "memory",
        "weights, KV, graphs, activations: what the engine told in its log when it started. Used, "
        "free, others: NVML. Lies: activations are a peak, not held all the time.",
    ),
    (
        "util",
        "share of time in which some kernel ran, from NVML. Lies: near 100% at one stream already. "
        "Look at power.",
    ),
    (
        "power",
        "NVML, mean of about a second; cap: the driver holds the clocks down to keep to the limit.",
    ),
    ("past knee", "in 30 s more was asked, TTFT rose by a quarter, and tok/s stayed within 8%."),
    ("queueing", "requests waited in most of the last 15 s."),
    ("--", "not known. 0 is a real zero."),
    ("stale", "the engine does not answer: the numbers are the last ones it gave."),
    ("simulated", "a model's numbers, of no engine and no GPU."),
    ("live", "options: takes effect at the next step. restart: asks, then restarts."),
)
