"""Logs of failed engines, made of the frames that engines put around an error."""

from __future__ import annotations

from llmtop.engines.core.adapter import Adapter
from llmtop.engines.failures.table import Explanation, explain
from llmtop.engines.sglang import adapter as sglang
from llmtop.engines.tensorrt_llm import adapter as tensorrt_llm
from llmtop.engines.vllm import adapter as vllm

ADAPTERS: dict[str, Adapter] = {
    "vllm": vllm.ADAPTER,
    "sglang": sglang.ADAPTER,
    "trt": tensorrt_llm.ADAPTER,
}
_CORE = "(EngineCore pid=412) ERROR 06-02 10:11:12 [core.py:1330] "
_WORKER = "(Worker_TP0 pid=455) ERROR 06-02 10:11:11 [multiproc_executor.py:852] "
_FRAME = '  File "/venv/lib/python3.12/site-packages/pkg/mod.py", line 12, in load\n    run()\n'


def _each(prefix: str, text: str) -> list[str]:
    return [prefix + line for line in text.split("\n")]


def core(error: str) -> list[str]:
    """vLLM: raised in the engine core, which prints it twice; then the API server's."""
    traceback = f"Traceback (most recent call last):\n{_FRAME}{error}"
    return [
        *_each(_CORE, f"EngineCore failed to start.\n{traceback}"),
        *_each("(EngineCore pid=412) ", f"Process EngineCore:\n{traceback}"),
        *front("RuntimeError: Engine core initialization failed. See root cause above. Failed core "
               "proc(s): {}"),
    ]  # fmt: skip


def worker(error: str) -> list[str]:
    """vLLM: raised in a worker; the engine core and the API server fail of it."""
    return [
        *_each(_WORKER, f"WorkerProc failed to start.\nTraceback (most recent call last):\n{_FRAME}"
               f"{error}"),
        *core("Exception: WorkerProc initialization failed due to an exception in a background "
              "process. See stack trace for root cause."),
    ]  # fmt: skip


def front(error: str) -> list[str]:
    """vLLM: not caught in the API server."""
    return _each("(APIServer pid=300) ", f"Traceback (most recent call last):\n{_FRAME}{error}")


def running(error: str) -> list[str]:
    """vLLM: while it served."""
    return [
        "(APIServer pid=300) INFO:     Application startup complete.",
        *_each(_CORE, f"EngineCore encountered a fatal error.\nTraceback (most recent call last):\n"
               f"{_FRAME}{error}"),
        *_each("(APIServer pid=300) ERROR 06-02 10:11:13 [async_llm.py:700] ",
               "AsyncLLM output_handler failed.\nTraceback (most recent call last):\n"
               "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See "
               "stack trace (above) for the root cause."),
    ]  # fmt: skip


def scheduler(error: str) -> list[str]:
    """SGLang: raised in the scheduler of a rank."""
    return [
        *("[2026-06-02 10:11:12 TP0] Scheduler hit an exception: Traceback (most recent call "
          f"last):\n{_FRAME}{error}\n").split("\n"),
        "[2026-06-02 10:11:12] Received sigquit from a child process. It usually means the child "
        "failed.",
    ]  # fmt: skip


def bare(error: str) -> list[str]:
    """Not caught, with no tag."""
    return f"Traceback (most recent call last):\n{_FRAME}{error}".split("\n")


def rank(error: str) -> list[str]:
    """TensorRT-LLM: the executor of a rank."""
    first, *more = error.split("\n")
    return [
        f"[06/02/2026-10:11:12] [TRT-LLM] [E] Failed to initialize executor on rank 0: {first}",
        *more,
        *bare("RuntimeError: Executor worker returned error"),
    ]


def lines(text: str) -> list[str]:
    """As they are."""
    return text.split("\n")


def told(engine: str, log: list[str], exit_code: int | None = 1) -> Explanation | None:
    """What llmtop makes of such a log of the engine ``web``."""
    adapter = ADAPTERS[engine]
    words = {**adapter.failure_words, "log": "llmtop logs web"}
    return explain(log, adapter.failures, exit_code, words=words)
