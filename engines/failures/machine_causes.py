"""Causes in the machine: disks, ports, permissions, memory.

Sources: CPython 3.11 (errno, argparse), asyncio, pyzmq,
PyTorch 2.x (c10d, c10/core), NCCL 2.2x (misc/shmutils.cc), the kernel's out-of-memory messages,
and public reports of vLLM, SGLang and TensorRT-LLM. Each expression begins with plain letters where
it can: the regular expression engine then skips through a line ten times as fast.
"""

from __future__ import annotations

from llmtop.engines.core.adapter import FailurePattern, Kind


def any_of(
    cause: str, advice: str, *expressions: str, kind: Kind = Kind.CAUSE
) -> tuple[FailurePattern, ...]:
    """One cause that several patterns recognise."""
    return tuple(FailurePattern(each, cause, advice, kind) for each in expressions)


API_PORT = "its port was taken by another process"
INTERNAL_PORT = "an internal port, between its own processes, is taken"
INTERNAL_ADVICE = (
    "it is not the port of the API, so --port does not help: start it again, or set {internal_port}"
)

_CACHES = (
    (r"vllm", "VLLM_CACHE_ROOT"),
    (r"huggingface|hf_home", "HF_HOME"),
    (r"\.?triton", "TRITON_CACHE_DIR"),
    (r"torchinductor", "TORCHINDUCTOR_CACHE_DIR"),
    (r"torch_extensions", "TORCH_EXTENSIONS_DIR"),
    (r"flashinfer", "FLASHINFER_WORKSPACE_BASE"),
    (r"deep_gemm|deepgemm", "DG_JIT_CACHE_DIR"),
    (r"tilelang", "TILELANG_CACHE_DIR"),
    (r"\.nv\b", "CUDA_CACHE_PATH"),
    (r"matplotlib", "MPLCONFIGDIR"),
)


def _path(piece: str) -> str:
    return rf"'(?P<path>[^'\n]{{0,200}}[/._-](?:{piece})[^'\n]{{0,200}})'"


_DENIED = r"(?:\[Errno 13\] Permission denied: |\[Errno 30\] Read-only file system: )"

SHARED_MEMORY = any_of(
    "the shared memory (/dev/shm) is full or too small",
    "in a container, use --shm-size 16g or --ipc=host; else remove old files from /dev/shm",
    r"(?:creating|extend|allocate|allocating) (?:a )?(?:shared memory|/dev/shm)[^\n]{0,200}",
    r"No space left on device[^\n]{0,40}(?:/dev/shm|'/psm_|'/sem\.|torch_)",
    r"/dev/shm[^\n]{0,160}No space left on device",
    r"posix_fallocate failed[^\n]{0,20}No space left",
    r"unable to (?:allocate|resize|write to) (?:a )?shared memory",
    r"might be out of shared memory|insufficient shared memory|out of shared memory\b",
    r"Call to ncclShmOpen|ncclShmOpen\(|shmCreate failed|Bus error \(core dumped\)|^Bus error\b",
    r"Fatal Python error: Bus error",
)

DISK = (
    *any_of(
        "a disk is full: it could not write {path}",
        "free space there, or put the folder on another disk",
        r"No space left on device: '(?P<path>[^'\n]{1,300})'",
        r"Disk quota exceeded: '(?P<path>[^'\n]{1,300})'",
    ),
    *any_of(
        "a disk is full",
        "free space where the engine writes: model cache ({cache}), log, /tmp",
        r"No space left on device",
        r"\[Errno 28\]",
        r"Disk quota exceeded",
        r"Not enough free disk space to download",
        r"not enough free space on disk",
    ),
)

PORTS = (
    *any_of(
        INTERNAL_PORT + ": {where}",
        INTERNAL_ADVICE,
        r"ZMQError: Address already in use \(addr='(?P<where>[^'\n]{1,100})'\)",
        r"server socket has failed to (?:listen|bind)[^\n]{0,120}?(?P<where>port: \d{1,5})",
        r"server socket has failed to (?:listen|bind)[^\n]{0,80}?(?P<where>\[::\]:\d{1,5}|"
        r"0\.0\.0\.0:\d{1,5})",
        r"TCPStore[^\n]{0,160}?(?P<where>port:? ?\d{1,5})[^\n]{0,160}EADDRINUSE",
    ),
    *any_of(
        INTERNAL_PORT,
        INTERNAL_ADVICE,
        r"ZMQError: Address already in use",
        r"(?:DistNetworkError|TCPStore|c10d)[^\n]{0,300}(?:EADDRINUSE|ddress already in use)",
    ),
    FailurePattern(
        r"attempt(?:ing)? to bind on address[^\n]{0,120}(?:ermission denied|Errno 13)",
        "it is not allowed to listen on its port: ports below 1024 need root",
        "choose a --port above 1023",
    ),
    *any_of(
        "the address that it should listen on does not belong to this machine",
        "correct --host: an address of this machine, or 0.0.0.0",
        r"(?:Errno 99|EADDRNOTAVAIL)[^\n]{0,200}",
        r"annot assign requested address",
    ),
    *any_of(
        API_PORT + ": {port}",
        "start it on another port with --port, or end the process that holds this one",
        r"while attempting to bind on address \([^)\n]{0,80}?(?P<port>\d{1,5})\)[^\n]{0,40}"
        r"ddress already in use",
        r"[Pp]ort (?P<port>\d{1,5}) is (?:already in use|not available|occupied)",
    ),
    *any_of(
        API_PORT,
        "start it on another port with --port, or end the process that holds this one",
        r"ddress already in use",  # CPython writes a capital, asyncio a small letter
        r"EADDRINUSE",
    ),
)

RIGHTS = (
    FailurePattern(
        r"(?:ermission denied|ot permitted)[^\n]{0,80}/dev/(?:nvidia|dri|kfd)",
        "it is not allowed to open the GPU's device",
        "check the permissions of /dev/nvidia* and the container's access to GPUs",
    ),
    *(
        FailurePattern(
            _DENIED + _path(piece),
            "it is not allowed to write to its cache folder {path}",
            f"make that folder writable, or set {variable} to a writable folder",
        )
        for piece, variable in _CACHES
    ),
    *any_of(
        "it is not allowed to read or write {path}",
        "correct the permissions of that path, or run the engine as another user",
        _DENIED + r"'(?P<path>[^'\n]{1,300})'",
        r"trying to write in your cache folder \((?P<path>[^)\n]{1,300})\)",
        r"(?P<path>/[^\s'\n]{1,200}) is not writable",
        r"Permission denied: '(?P<path>[^'\n]{1,300})'",
    ),
    FailurePattern(
        r"getpwuid\(\): uid not found: (?P<uid>\d{1,10})",
        "its user id {uid} has no entry in /etc/passwd, and PyTorch asks for the name",
        "run it as a user that the container knows, or set USER, HOME and TORCHINDUCTOR_CACHE_DIR",
    ),
    *any_of(
        "it was not permitted to do something: {what}",
        "correct the permissions of the path in that line, or run the engine as another user",
        r"PermissionError: (?P<what>[^\n]{1,200})",
        r"(?P<what>Read-only file system[^\n]{0,200})",
    ),
)

HANDLES = (
    *any_of(
        "it ran out of file handles",
        "raise the limit (ulimit -n) before starting llmtop",
        r"OSError: \[Errno 24\](?! Too many open files`)",  # vLLM warns of it in backquotes
        r"Too many open files(?! ?`|`)",
    ),
    *any_of(
        "it reached the limit of threads or processes",
        "raise the limit (ulimit -u, the container's pids limit), or set OMP_NUM_THREADS lower",
        r"can't start new thread",
        r"pthread_create failed",
        r"\[Errno 11\] Resource temporarily unavailable",
        r"fork: retry: Resource temporarily unavailable",
    ),
)

KILLER = (
    *any_of(
        "compiling was killed: the main memory ran out",
        "set MAX_JOBS=2 so that fewer compilers run at once, or leave more main memory free",
        r"fatal error: Killed signal terminated program",
    ),
    *any_of(
        "Ray ended it because the main memory of its node ran low",
        "give the node or its container more memory, or use less memory: {host_memory}",
        r"Task was killed due to the node running low on memory",
        r"ray\.exceptions\.OutOfMemoryError",
    ),
    *any_of(
        "the kernel's out-of-memory killer ended it: the main memory ran out",
        "give the machine or the container more memory, or use less memory: {host_memory}",
        r"Out of memory: Killed process",
        r"oom[-_](?:kill(?!er (?:is )?dis)|reaper)",
        r"OOMKilled",
        r"emory cgroup out of memory",
        r"killed due to (?:the node running low on memory|memory pressure)",
    ),
)

MEMORY = (
    FailurePattern(
        r"Too large swap space\. (?P<asked>[\d.]{1,12}) GiB out of the (?P<total>[\d.]{1,12}) GiB",
        "the requested swap space takes {asked} GiB of {total} GiB of main memory",
        "lower --swap-space",
    ),
    FailurePattern(
        r"unable to mmap (?P<size>\d{1,20}) bytes from file <(?P<path>[^>\n]{1,300})>",
        "the main memory ran out while mapping {path} ({size} bytes)",
        "leave more main memory free, raise the container's limit, or vm.overcommit_memory",
    ),
    FailurePattern(
        r"DefaultCPUAllocator: [^\n]{0,80}you tried to allocate (?P<size>\d{1,20}) bytes",
        "the main memory ran out: {size} bytes could not be allocated",
        "leave more main memory free, or use less memory: {host_memory}",
    ),
    *any_of(
        "the main memory ran out: pinned memory could not be allocated",
        "leave more main memory free, raise ulimit -l, or use less memory: {host_memory}",
        r"cuda(?:HostAlloc|MallocHost|HostRegister)[^\n]{0,120}(?:out of memory|failed)",
        r"[Ff]ailed to (?:allocate|pin)[^\n]{0,40}pinned",
    ),
    *any_of(
        "the main memory ran out",
        "leave more main memory free, or use less memory: {host_memory}",
        r"^MemoryError\b|\bMemoryError(?::|$)",
        r"std::bad_alloc",
        r"Cannot allocate memory",
        r"DefaultCPUAllocator",
        r"\[Errno 12\]",
        r"Unable to allocate [\d.]{1,12} [KMGT]iB for an array",
    ),
)

ARGUMENTS = (
    *any_of(
        "it does not know the argument {flags}",
        "check the spelling and the engine's version",
        r"error: unrecognized arguments: (?P<flags>[^\n]{1,200})",
    ),
    *any_of(
        "it does not accept the value of {flag}: {what}",
        "correct the value",
        r"error: argument (?P<flag>[^:\n]{1,100}): (?P<what>[^\n]{1,200})",
    ),
    FailurePattern(
        r"error: the following arguments are required: (?P<flags>[^\n]{1,200})",
        "it needs the argument {flags}",
        "add it",
    ),
)
