"""The section of a report that describes the setup of a measurement."""

from __future__ import annotations

from typing import Any

from llmtop.report.document import Section
from llmtop.report.fields import at, entries, items, number, plain, text, whole
from llmtop.report.runs import Run
from llmtop.wording.format import gib

UNKNOWN = "not recorded"


def setup_section(run: Run, title: str) -> Section:
    """Hardware, engine, options, model, load and command of one run."""
    facts = [("Engine", engine_words(run)), ("Model", model_words(run))]
    facts += [("Options that differ from defaults", options_words(run))]
    facts += [("GPUs", gpu_words(run)), ("Host", host_words(run)), ("Load", load_words(run))]
    seed = whole(run.document, "setup", "load", "seed")
    seed = seed if seed is not None else whole(run.document, "seed")
    facts += [("Seed", UNKNOWN if seed is None else str(seed))]
    version = text(run.document, "setup", "llmtop")
    facts += [("Measured with", f"llmtop {version}" if version else "llmtop")]
    command = text(run.document, "setup", "command", limit=2000)
    paragraphs = ("This command repeats the run:",) if command else ()
    return Section(title, paragraphs=paragraphs, facts=tuple(facts), code=command)


def engine_words(run: Run) -> str:
    """The kind and version of the engine: ``vllm 0.32.0``. A note marks a simulated engine."""
    kind, version = (text(run.document, "setup", "engine", name) for name in ("kind", "version"))
    words = (
        " ".join(part for part in (kind, version) if part) or text(run.document, "name") or UNKNOWN
    )
    return f"{words} (simulated: not real hardware)" if run.simulated else words


def model_words(run: Run) -> str:
    """The model that the requests named."""
    return text(run.document, "model") or text(run.document, "setup", "load", "model") or UNKNOWN


def options_words(run: Run) -> str:
    """The options that differ from their defaults: ``max_num_seqs 64, enable_prefix_caching off``;
    "none" without any."""
    if at(run.document, "setup", "engine", "options") is None:
        return UNKNOWN
    found = [
        f"{name} {plain(value)}"
        for name, value in entries(run.document, "setup", "engine", "options")
    ]
    return ", ".join(found) or "none"


def gpu_words(run: Run) -> str:
    """The GPUs: ``2 x NVIDIA H200 140 GiB, driver 570.86``; "none seen" without any."""
    gpus = items(run.document, "setup", "gpus")
    if not gpus:
        return "none seen" if at(run.document, "setup", "gpus") == [] else UNKNOWN
    kinds: dict[str, int] = {}
    for gpu in gpus:
        memory = number(gpu, "memory_total_bytes")
        words = text(gpu, "name") + (f" {gib(memory)} GiB" if memory else "")
        kinds[words] = kinds.get(words, 0) + 1
    driver = text(gpus[0], "driver")
    words = ", ".join(f"{many} x {kind}" for kind, many in kinds.items())
    return f"{words}, driver {driver}" if driver else words


def host_words(run: Run) -> str:
    """Processor, cores, memory, and the load average at the end of the run."""
    cpu = text(run.document, "setup", "host", "cpu")
    if not cpu:
        return UNKNOWN
    cores, memory = (
        number(run.document, "setup", "host", name) for name in ("cores", "memory_bytes")
    )
    average = number(run.document, "setup", "host", "load_average")
    parts = [cpu, f"{plain(cores)} cores", f"{gib(memory)} GiB"]
    parts += [f"load average {average:.1f} at the end"] if average is not None else []
    return ", ".join(parts)


def load_words(run: Run) -> str:
    """The loop and shape of the load, and the lengths and kind of its prompts and answers."""
    prompts = at(run.document, "setup", "load", "prompts")
    shape = text(run.document, "shape") or text(run.document, "setup", "load", "shape")
    if prompts is None:
        return shape or UNKNOWN
    parts = [f"{text(run.document, 'loop')} loop, {shape}"] if shape else []
    parts += [
        f"prompts {lengths_words(at(prompts, 'prompt_tokens'))} tokens",
        f"answers {lengths_words(at(prompts, 'output_tokens'))} tokens",
    ]
    if shared := whole(prompts, "shared_prefix_tokens"):
        parts.append(f"common prefix {shared:,} tokens")
    if dataset := text(prompts, "dataset"):
        parts.append(f"dataset {dataset}")
    for name, words in (("repetitive", "repetitive prompts"), ("chat", "chats")):
        if at(prompts, name) is True:
            parts.append(words)
    if at(prompts, "ignore_eos") is False:
        parts.append("answers may end early")
    return ", ".join(parts)


def lengths_words(value: Any) -> str:
    """Lengths in tokens: ``128``, ``64 to 256``, or the parameters of a distribution."""
    if isinstance(value, list) and len(value) == 2:
        low, high = value
        return plain(low) if low == high else f"{plain(low)} to {plain(high)}"
    if isinstance(value, dict):
        return " ".join(f"{name} {plain(one)}" for name, one in entries(value))
    return plain(value)
