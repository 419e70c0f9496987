"""Checks everything that an engine needs from this machine. Reports problems and remedies."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from llmtop import LlmtopError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import EngineRecord
from llmtop.engines.core.samples import GpuSample
from llmtop.engines.core.versions import older
from llmtop.engines.gpu.devices import Gpus
from llmtop.engines.gpu.driver_mismatch import REMEDY, mismatch_words
from llmtop.engines.gpu.memory_guard import WORTH_A_WORD, GpuMemory, held_bytes
from llmtop.engines.gpu.nvml import NO_PERMISSION
from llmtop.engines.gpu.processes import GIB, GpuHolder, gib, openers
from llmtop.engines.host import ports
from llmtop.engines.host.installed import InstalledEngine, find_installed
from llmtop.engines.host.orphans import Orphan, find_orphans
from llmtop.engines.host.permissions import Permissions, exposures
from llmtop.engines.host.processes import Processes, identity
from llmtop.engines.state.state_directory import Problem, StateDirectory
from llmtop.values import replace

SCARCE_BYTES = GIB  # an engine's logs take at most 128 MiB, its own caches more
NO_SPACE_BYTES = 16 * 2**20
_CROWDED = 0.5  # of a GPU's memory: if other processes hold more, an engine hardly fits


class Weight(StrEnum):
    """How much a finding matters."""

    BLOCKS = "blocks"  # no engine can be started or kept until it is solved
    WARNS = "warns"


class Finding(Struct, frozen=True):
    """A problem in one sentence, and its remedy."""

    weight: Weight
    text: str
    hint: str = ""


class PortUse(Struct, frozen=True):
    """A port that an engine uses or would use by default.

    engine: the engine of llmtop that owns it. holder: the listening process, "" for none.
    """

    port: int
    engine: str | None
    holder: str
    pid: int | None


class StateFacts(Struct, frozen=True):
    """The folders. free_bytes, socket_mode: None if unknown.

    exposed: files in them or beside them that other users can write.
    """

    folder: str
    writable: bool
    free_bytes: int | None
    socket_folder: str | None
    socket_mode: int | None
    problems: tuple[Problem, ...]
    exposed: tuple[Permissions, ...] = ()


class Doctor(Struct, frozen=True):
    """The complete result. host_pids: NVML's pids are valid here. openers: else the processes that
    have a GPU open. mismatch: the driver and its library have different versions."""

    driver: str | None
    cuda: str | None
    gpu_note: str
    host_pids: bool
    gpus: tuple[GpuSample, ...]
    holders: tuple[GpuHolder, ...]
    openers: Mapping[int, str]
    ports: tuple[PortUse, ...]
    state: StateFacts
    installed: tuple[InstalledEngine, ...]
    orphans: tuple[Orphan, ...]
    findings: tuple[Finding, ...] = ()
    mismatch: bool = False

    @property
    def blocked(self) -> bool:
        """Whether a finding blocks every engine."""
        return any(finding.weight is Weight.BLOCKS for finding in self.findings)


def examine(
    state: StateDirectory,
    adapters: Mapping[str, Adapter],
    *,
    gpus: Gpus,
    memory: GpuMemory,
    processes: Processes,
    engines: Mapping[int, str],
    path: str,
    config: tuple[Path, ...] = (),
) -> Doctor:
    """Check everything. Findings are returned, never raised. engines: names of llmtop's engines by
    pid. config: the folder and the files of the configuration."""
    records, problems = state.scan()
    samples = memory.read()
    driver, cuda = gpus.versions()
    orphans = find_orphans(processes, engines)
    holders = memory.holders(samples, engines)
    hidden = not memory.host_pids and any(sample.processes for sample in samples)
    alive = [record for record in records if processes.alive(identity(record))]
    seen = Doctor(
        driver=driver,
        cuda=cuda,
        gpu_note=memory.note,
        host_pids=memory.host_pids,
        gpus=samples,
        holders=holders,
        openers=openers(processes.everyone()) if hidden else {},
        ports=_ports(alive, adapters, engines),
        state=_state(state, problems, config),
        installed=find_installed(path, (record.command[0] for record in records if record.command)),
        orphans=orphans,
        mismatch=gpus.mismatch,
    )
    findings = [*_about_state(seen), *_about_gpus(seen), *_about_processes(seen)]
    findings += _about_installed(seen, adapters)
    return _with(seen, findings)


def _with(seen: Doctor, findings: list[Finding]) -> Doctor:
    order = list(Weight)
    return replace(seen, findings=tuple(sorted(findings, key=lambda f: order.index(f.weight))))


def _ports(
    alive: list[EngineRecord], adapters: Mapping[str, Adapter], engines: Mapping[int, str]
) -> tuple[PortUse, ...]:
    owners = {record.spec.port: record.name for record in alive}
    found = []
    for port in sorted({*owners, *(adapter.default_port for adapter in adapters.values())}):
        holder = ports.holder(port)
        if holder is None and port not in owners:
            continue
        pid = holder.pid if holder is not None else None
        engine = engines.get(pid) if pid is not None else owners.get(port)
        found.append(PortUse(port, engine, str(holder) if holder is not None else "", pid))
    return tuple(found)


def _state(state: StateDirectory, problems: list[Problem], config: tuple[Path, ...]) -> StateFacts:
    try:
        state.try_to_write()
        writable = True
    except LlmtopError:
        writable = False
    try:
        folder: Path | None = state.socket_path("doctor").parent
        mode = stat.S_IMODE(folder.stat().st_mode) if folder is not None else None
    except (LlmtopError, OSError):
        folder = mode = None
    return StateFacts(
        folder=str(state.root),
        writable=writable,
        free_bytes=_free(state.root),
        socket_folder=str(folder) if folder is not None else None,
        socket_mode=mode,
        problems=tuple(problems),
        exposed=tuple(exposures((state.root, *state.inner_folders(), *config))),
    )


def _free(folder: Path) -> int | None:
    for place in (folder, *folder.parents):
        if place.exists():
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return None
    return None


def _about_state(seen: Doctor) -> list[Finding]:
    found, state = [], seen.state
    elsewhere = "set XDG_STATE_HOME to a folder that you can write to"
    if not state.writable:
        found.append(Finding(Weight.BLOCKS, f"{state.folder} cannot be written", elsewhere))
    elif state.free_bytes is not None and state.free_bytes < SCARCE_BYTES:
        weight = Weight.BLOCKS if state.free_bytes < NO_SPACE_BYTES else Weight.WARNS
        text = f"{state.free_bytes / 2**20:.0f} MiB are free under {state.folder}"
        found.append(Finding(weight, text, f"free some space, or {elsewhere}"))
    if state.socket_folder is None:
        hint = "set XDG_RUNTIME_DIR to a folder that only you can access (mode 0700)"
        found.append(Finding(Weight.BLOCKS, "no private folder for sockets exists", hint))
    found += [Finding(Weight.WARNS, p.message, p.hint) for p in state.problems]
    found += [Finding(Weight.WARNS, one.text, one.hint) for one in state.exposed]
    return found


def _about_gpus(seen: Doctor) -> list[Finding]:
    found = []
    if seen.mismatch:
        found.append(Finding(Weight.BLOCKS, mismatch_words(), REMEDY))
    elif seen.gpu_note and not seen.gpus:
        # Without any GPU the simulated engine and CPU builds still run.
        hint = "without a GPU only the simulated engine and engines built for CPUs run"
        if NO_PERMISSION in seen.gpu_note:
            hint = "add the user to the groups video and render; a container needs --gpus all"
        found.append(Finding(Weight.WARNS, seen.gpu_note, hint))
    elif seen.gpu_note:
        found.append(Finding(Weight.WARNS, seen.gpu_note, "see nvidia-smi and the kernel's log"))
    crowded = []
    for gpu in seen.gpus:
        holders = [h for h in seen.holders if h.gpu == gpu.index]
        ours = sum(h.memory_bytes or 0 for h in holders if h.engine is not None)
        others = [h for h in holders if h.engine is None]
        # Programs without a GPU also reduce the machine's memory that an engine can use.
        taken = (gpu.memory_used_bytes or 0) if gpu.unified else held_bytes(gpu)
        if gpu.memory_total_bytes and taken - ours > _CROWDED * gpu.memory_total_bytes:
            crowded.append(gpu.index)
        if held_bytes(gpu) - ours >= WORTH_A_WORD:
            found.append(_held(gpu, held_bytes(gpu) - ours, others))
        elif gpu.index in crowded:
            found.append(_machine_is_full(gpu))
    if seen.gpus and len(crowded) == len(seen.gpus):
        found.append(
            Finding(
                Weight.BLOCKS,
                "no GPU has half of its memory free for a new engine",
                "the list below shows which processes hold it",
            )
        )
    return found


def _held(gpu: GpuSample, held: int, others: list[GpuHolder]) -> Finding:
    named = ", ".join(h.words for h in others[:2]) or "a process that the driver does not name"
    ways = list(dict.fromkeys(h.way_out for h in others if h.way_out))
    hint = "free it with: " + "; ".join(ways) if ways else "end it, or use another GPU"
    return Finding(Weight.WARNS, f"GPU {gpu.index}: {gib(held)} are held by {named}", hint)


def _machine_is_full(gpu: GpuSample) -> Finding:
    used, total = gib(gpu.memory_used_bytes), gib(gpu.memory_total_bytes)
    text = f"GPU {gpu.index} has unified memory: {used} of {total} of the machine are in use"
    return Finding(
        Weight.WARNS, text, "end the process that holds it, or give the engine a smaller share"
    )


def _about_processes(seen: Doctor) -> list[Finding]:
    found = []
    on_gpu = {h.orphan for h in seen.holders if h.memory_bytes}
    for one in seen.orphans:
        if one.pid in on_gpu:
            continue  # reported with the GPU
        mine = one.uid == os.geteuid()
        hint = f"llmtop doctor --end {one.pid}" if mine else f"ask the user {one.user} to end it"
        text = f"pid {one.pid} ({one.title}) is an orphan: its engine is gone, and it still runs"
        found.append(Finding(Weight.WARNS, text, hint))
    for use in seen.ports:
        if use.engine is None and use.holder:
            text = f"port {use.port}, an engine's default, is used by {use.holder}"
            hint = (
                f"if it is an engine, `llmtop attach :{use.port}` shows it;"
                " --port sets another port"
            )
            found.append(Finding(Weight.WARNS, text, hint))
    return found


def _about_installed(seen: Doctor, adapters: Mapping[str, Adapter]) -> list[Finding]:
    found = []
    for engine in seen.installed:
        adapter = adapters.get(engine.kind)
        if adapter is None or engine.version is None:
            continue
        if adapter.min_version and older(engine.version, adapter.min_version):
            text = f"{adapter.title} {engine.version} ({engine.program}) is older than what llmtop"
            text += f" was built for, {adapter.min_version}"
            found.append(Finding(Weight.WARNS, text, "some features may fail; use a newer version"))
    return found
