"""Errors that are effects of another error: reported only if no cause is found.

Sources: vLLM 0.8 to 0.32, SGLang 0.4 to 0.5.23, TensorRT-LLM 1.x, Python's multiprocessing,
torch's elastic launcher, Ray, Open MPI.
"""

from __future__ import annotations

from llmtop.engines.core.adapter import FailurePattern, Kind
from llmtop.engines.failures.machine_causes import any_of

_SEEK = "its own error was not found in the log: {log}"

KILLED = (
    FailurePattern(
        r"(?:Subprocess|[Pp]roc(?:ess)?|worker) (?P<who>[\w:.-]{1,60})[^\n]{0,60}"
        r"(?:exit ?code:?|exited with|code) -9\b",
        "its process {who} was killed (SIGKILL)",
        "not by llmtop: dmesg shows whether the kernel killed it for lack of memory",
        Kind.EFFECT,
    ),
    *any_of(
        "one of its processes was killed (SIGKILL)",
        "not by llmtop: dmesg shows whether the kernel killed it for lack of memory",
        r"[Ee]xit(?:ed|s|code)? ?(?:with )?(?:exit ?)?(?:code)?:? ?-9\b",
        r"(?:terminated with|died with) (?:signal )?<?(?:Signals?\.)?SIGKILL",
        r"killed by signal:? 9\b",
        r"signal 9 \(Killed\)",
        kind=Kind.EFFECT,
    ),
    FailurePattern(
        r"(?:Subprocess|[Pp]roc(?:ess)?|worker) (?P<who>[\w:.-]{1,60})[^\n]{0,60}"
        r"(?:exit ?code:?|exited with|code) -(?P<number>\d{1,3})\b",
        "its process {who} was ended by signal {number}",
        "11 and 6 are faults in native code, 7 is often a full /dev/shm: read the lines before it",
        Kind.EFFECT,
    ),
    FailurePattern(
        r"(?:exited on signal|died with <Signals\.\w{1,12}:|terminated with signal) "
        r"(?P<signal>[\w ()]{1,40})",
        "one of its processes was ended by a signal: {signal}",
        "read the lines before it: {log}",
        Kind.EFFECT,
    ),
)

CORE_DIED = "the engine core died"

DIED = (
    FailurePattern(
        r"Worker proc (?P<who>\S{1,80}) died unexpectedly",
        "its worker process {who} died",
        _SEEK,
        Kind.EFFECT,
    ),
    *any_of(
        "the engine core did not start",
        _SEEK,
        r"Engine core initialization failed",
        r"Engine process failed to start",
        r"EngineCore failed to start",
        kind=Kind.EFFECT,
    ),
    *any_of(
        CORE_DIED,
        _SEEK + "; if it was killed, dmesg may show the reason",
        r"EngineDeadError",
        r"Engine core proc(?:ess)? \S{1,80} died unexpectedly|EngineCore encountered a",
        r"^AsyncLLM output_handler failed",
        kind=Kind.EFFECT,
    ),
    *any_of(
        "one of its processes died",
        _SEEK,
        r"WorkerProc (?:initialization failed|failed to start|hit an exception)",
        r"Worker failed with error",
        r"[Ss]ee (?:the )?(?:root cause|stack trace|error messages?|traceback)[^\n]{0,40}",
        r"died unexpectedly|unexpectedly died|exited unexpectedly",
        r"Engine (?:loop|process) (?:has |is )?(?:died|dead)|Background loop has errored",
        r"Received sigquit|SIGQUIT received|Scheduler hit an exception",
        r"scheduler (?:died|is dead)|Scheduler or DataParallelController|is dead\. Please check",
        r"Executor worker (?:returned error|died|terminated)|CppExecutorError",
        r"MPI_A(?:BORT|bort)|mpi4py\.futures|RequestError|Executor (?:is|was) shut ?down",
        r"\bExecutor failed\b",
        r"ChildFailedError|ProcessExitedException|ProcessRaisedException|BrokenProcessPool",
        r"ActorDiedError|RayActorError|The actor died|WorkerCrashedError",
        r"Connection (?:closed|reset) by peer|BrokenPipeError|Broken pipe|ConnectionResetError",
        r"recvValue failed|failed to recv, got 0 bytes|remote process exited|EOFError",
        r"ContextTerminated|Context was terminated",
        kind=Kind.EFFECT,
    ),
    *any_of(
        "it was interrupted",
        "",
        r"KeyboardInterrupt|CancelledError|^SystemExit\b",
        kind=Kind.EFFECT,
    ),
    FailurePattern(
        r"ExceptionGroup|unhandled errors in a TaskGroup",
        "several of its tasks failed",
        _SEEK,
        Kind.EFFECT,
    ),
)
