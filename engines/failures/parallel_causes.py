"""Causes between processes and GPUs: NCCL, Gloo, Ray, torch.distributed, parallelism.

Sources: NCCL 2.2x, PyTorch's c10d, Ray 2.x, Open MPI, vLLM's and SGLang's executors and public
reports. Also general errors that any program may have: pydantic, assertions.
"""

from __future__ import annotations

from llmtop.engines.core.adapter import FailurePattern, Kind
from llmtop.engines.failures.machine_causes import any_of

SPLIT = (
    FailurePattern(
        r"attention heads \(?(?P<heads>\d{1,6})\)? must be divisible by (?:the )?tensor parallel "
        r"size \(?(?P<size>\d{1,5})",
        "{heads} attention heads cannot be split over {size} GPUs",
        "choose a {parallel} that divides {heads}",
    ),
    FailurePattern(
        r"World size \((?P<asked>\d{1,6})\) is larger than the number of available GPUs "
        r"\((?P<found>\d{1,6})\)",
        "the model should be split over {asked} GPUs, but there are {found}",
        "lower {parallel}, or give more GPUs",
    ),
    FailurePattern(
        r"output_partition_size ?=? ?(?P<size>\d{1,9}) is not divisible by weight quantization "
        r"block_n ?=? ?(?P<block>\d{1,6})",
        "the quantised weights cannot be split this way: {size} is not a multiple of {block}",
        "lower {parallel}",
    ),
    *any_of(
        "the model cannot be split over so many GPUs: {line}",
        "choose a {parallel} that divides the model's heads, experts and layers",
        r"\d{1,9} is not divisible by \d{1,9}",
        r"divisible by [^\n]{0,30}(?:\btp|TP|tensor|world)",
        r"\b(?:tp|ep|pp|dp)_size \d{1,5} must divide",
        r"input size is not aligned with the quantized weight shape",
    ),
)

RAY = (
    *any_of(
        "Ray has fewer GPUs than tensor x pipeline parallelism asks for",
        "lower {parallel}, add nodes to the Ray cluster, or see what holds its GPUs (ray status)",
        r"number of required GPUs exceeds the total number of available GPUs",
        r"Cannot provide a placement group",
        r"No available node types can fulfill resource request",
        r"You don't have enough GPUs available in a current node",
        r"Current node has no GPU available",
        r"tensor parallel size[^\n]{0,60}exceed[^\n]{0,30}available GPUs in",
    ),
    *any_of(
        "there is no Ray cluster that it could join",
        "start one with ray start --head, set RAY_ADDRESS, or use {no_ray}",
        r"Could not find any running Ray instance",
        r"Failed to connect to (?:the )?(?:Ray|GCS)",
        r"ray\.init\(\)[^\n]{0,60}(?:failed|not connected)",
        r"Unable to connect to GCS|Timed out while waiting for GCS",
        r"RaySystemError: [^\n]{0,40}(?:connect|never started|not been started)",
    ),
    *any_of(
        "Ray is missing in its Python environment",
        "install ray there, or use {no_ray}",
        r"Failed to import Ray|Ray is not installed|install Ray with",
        r"No module named 'ray'",
    ),
    FailurePattern(
        r"Version mismatch: The cluster was started with[^\n]{0,200}",
        "the Ray cluster has another version of Ray or Python than this engine",
        "use the same versions on every node",
    ),
)

NCCL = (
    FailurePattern(
        r"Duplicate GPU detected ?: (?P<what>[^\n]{1,120})",
        "two ranks were given the same GPU: {what}",
        "give each rank a GPU of its own (CUDA_VISIBLE_DEVICES, {parallel})",
    ),
    *any_of(
        "the GPUs' processes found no network to connect over: {what}",
        "set NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME to an existing network interface, and "
        "check that the host's name can be resolved",
        r"(?P<what>no socket interface found[^\n]{0,60})",
        r"(?P<what>[Uu]nable to find address for: [^\n]{1,60})",
        r"(?P<what>[Uu]nable to resolve hostname[^\n]{0,80})",
        r"(?P<what>makeDeviceFor\w{1,20}\(\)[^\n]{0,80})",
        r"(?P<what>connectFullMesh failed[^\n]{0,100})",
    ),
    FailurePattern(
        r"(?:gaierror: |Name or service not known|Temporary failure in name resolution)",
        "a host name cannot be resolved: {line}",
        "check DNS, /etc/hosts and the addresses that it was given (--host, MASTER_ADDR)",
    ),
    FailurePattern(
        r"[Ww]atchdog caught collective operation timeout: ?(?P<what>[^\n]{1,200})",
        "the GPUs waited for each other too long (NCCL): {what}",
        "one rank hung or died: the log shows its own error before it; "
        "NCCL_DEBUG=INFO shows the link",
    ),
    *any_of(
        "the processes of its ranks did not find each other in time: {what}",
        "check that all nodes and ranks start, that the address is right and no firewall blocks it",
        r"(?P<what>client socket has timed out after [^\n]{1,160})",
        r"(?P<what>Timed out after \d{1,7} seconds waiting for clients[^\n]{0,80})",
        r"(?P<what>client socket has failed to connect to [^\n]{1,160})",
        r"(?P<what>connect\(\) timed out[^\n]{0,80})",
        r"(?P<what>wait timeout after \d{1,9}ms[^\n]{0,80})",
    ),
    *any_of(
        "the GPUs could not talk to each other (NCCL): {what}",
        "set NCCL_DEBUG=INFO and start again to see which link; in a container check --shm-size "
        "and --ipc=host",
        r"Last error:\n ?(?P<what>[^\n]{4,200})",
        r"NCCL WARN (?P<what>[^\n]{4,200})",
    ),
    *any_of(
        "the GPUs could not talk to each other (NCCL): {what}",
        "set NCCL_DEBUG=INFO and start again to see which link; in a container check --shm-size "
        "and --ipc=host",
        r"NCCL (?:error|failure)[^\n]{0,160}?(?P<what>(?:unhandled|internal|invalid|remote|system|"
        r"Cuda failure)[^\n]{1,120})",
        r"(?P<what>nccl(?:UnhandledCuda|System|Internal|Remote|InvalidUsage|InvalidArgument)"
        r"(?:Error)?[^\n]{0,120})",
        r"(?P<what>NCCL (?:error|failure)[^\n]{0,160})",
        kind=Kind.VAGUE,
    ),
    FailurePattern(
        r"There are not enough slots available in the system",
        "MPI does not start as many workers as the model needs",
        "lower {parallel}, or allow more with OMPI_MCA_rmaps_base_oversubscribe",
    ),
)

TIMEOUTS = (
    FailurePattern(
        r"Watchdog timeout \(self\.watchdog_timeout=(?P<seconds>[\d.]{1,12})",
        "the scheduler hung: its watchdog saw no progress for {seconds} s",
        "see the stacks after it in the log; a hung GPU or NCCL is usual, a long compilation "
        "needs {watchdog}",
    ),
    FailurePattern(
        r"[Ww]atchdog[^\n]{0,60}time(?:d )?out",
        "it hung: its watchdog saw no progress",
        "see the stacks after it in the log; a hung GPU or NCCL is usual, a long compilation "
        "needs {watchdog}",
    ),
    *any_of(
        "a worker did not answer in time: {what}",
        "it hung or compiled for too long: a hung GPU or NCCL is usual; see its last lines",
        r"(?P<what>RPC call to \w{1,60} timed out)",
        r"(?P<what>Hang detected[^\n]{0,120})",
        r"(?P<what>Did not receive response from front-end process within [^\n]{1,40})",
        r"(?P<what>Timed out waiting for engine[^\n]{0,120})",
        r"(?P<what>Initialization timeout[^\n]{0,80})",
    ),
)

# Errors that every program may have: tried last, if no table has a better match.
OWN_WORDS = (
    FailurePattern(
        r"\d{1,4} validation errors? for (?P<what>[\w.-]{1,80})\n\s{0,8}(?:Value|Assertion) error, "
        r"(?P<reason>[^\n]{1,260}?)(?: \[type=[^\n]{0,400})?(?:\n|$)",
        "{what} was refused: {reason}",
        "correct the value that it names; the whole error: {log}",
    ),
    FailurePattern(
        r"\d{1,4} validation errors? for (?P<what>[\w.-]{1,80})\n\s{0,8}(?P<key>[\w.\[\]-]{1,100})"
        r"\n\s{0,8}(?P<reason>[^\n]{1,260}?)(?: \[type=[^\n]{0,400})?(?:\n|$)",
        "{what} was refused: {key}: {reason}",
        "correct the value that it names; the whole error: {log}",
    ),
    FailurePattern(
        r"Assertion failed: (?P<what>[^\n]{1,240}?)(?: \(/[^()\n]{1,200}:\d{1,6}\))?(?:\n|$)",
        "an assertion failed: {what}",
        "correct the value that it names, or try another version; the whole error: {log}",
    ),
    FailurePattern(
        r"\[TensorRT-LLM\]\[ERROR\] (?P<what>[^\n]{3,240})",
        "TensorRT-LLM failed: {what}",
        "read the lines around it: {log}",
    ),
)
