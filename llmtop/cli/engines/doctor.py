"""``llmtop doctor``: check what an engine needs on this machine, and how to fix what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmtop import UsageError
from llmtop.cli.common.output import document, json_flag, note

if TYPE_CHECKING:
    from llmtop.engines.doctor import Doctor
    from llmtop.operations.wiring import Wiring


@click.command()
@click.option(
    "--end",
    "pid",
    type=click.IntRange(min=2),
    metavar="PID",
    help="End this orphaned process; asks first.",
)
@click.option("--yes", is_flag=True, help="With --end: do not ask.")
@json_flag
def command(pid: int | None, yes: bool, as_json: bool) -> int:
    """Check this machine: driver, GPUs and their processes, engines, ports, folders, orphans.

    The exit code is 0 when nothing prevents an engine from starting, else 1.

    An orphan is a process of an engine whose parent has ended. It still holds memory.
    """
    from llmtop.operations.wiring import Wiring

    wiring = Wiring()
    if pid is not None:
        if as_json:
            raise UsageError("give --json or --end, not both")
        return end(wiring, pid, yes)
    seen = check_machine(wiring)
    if as_json:
        document(entry(seen))
    else:
        from llmtop.cli.engines.checklist import print_checkup

        print_checkup(seen)
    return 1 if seen.blocked else 0


def check_machine(wiring: Wiring) -> Doctor:
    """Run all checks once."""
    from llmtop.config.file import NAME
    from llmtop.engines.doctor import examine
    from llmtop.engines.registry import ADAPTERS

    return examine(
        wiring.state,
        ADAPTERS,
        gpus=wiring.gpus,
        memory=wiring.gpu_memory,
        processes=wiring.processes,
        engines=wiring.supervisor.members(),
        path=wiring.environ.get("PATH", ""),
        config=(wiring.themes_folder.parent, wiring.themes_folder.parent / NAME),
    )


def end(wiring: Wiring, pid: int, yes: bool) -> int:
    """End one orphan after consent, and report GPU memory that stays in use. Returns the exit code.

    yes: do not ask. Raises LlmtopError when the process is no orphan or cannot be ended.
    """
    from llmtop.engines.host.orphans import end_orphan, look_up
    from llmtop.printable import clean
    from llmtop.wording.format import duration, gib

    one = look_up(pid, wiring.processes, wiring.supervisor.members())
    children = len(one.pids) - 1
    plural = "" if children == 1 else "es"
    more = f" and {children} process{plural} that it started" if children else ""
    words = f"pid {pid} ({clean(one.title)}, {duration(one.age_s)} old"
    words += f", {gib(one.memory_bytes)} GiB of main memory){more}"
    if not yes and not click.confirm(f"End {words}?", err=True):
        note("it keeps running")
        return 1
    held = wiring.gpu_memory.before_stop(one.pids)
    end_orphan(one, wiring.processes, wiring.supervisor.members())
    note(f"ended {words}")
    still = wiring.gpu_memory.wait_back(held) if held is not None else ""
    if still:
        note(still)
    return 0


def entry(seen: Doctor) -> dict[str, Any]:
    """The report as ``doctor --json`` prints it. docs/reference/json.md describes the fields."""
    return {
        "blocked": seen.blocked,
        "findings": [
            {"weight": found.weight.value, "text": found.text, "hint": found.hint}
            for found in seen.findings
        ],
        "driver": seen.driver,
        "cuda": seen.cuda,
        "gpu_note": seen.gpu_note,
        "host_pids": seen.host_pids,
        "gpus": [
            {
                "index": gpu.index,
                "name": gpu.name,
                "uuid": gpu.uuid,
                "memory_total_bytes": gpu.memory_total_bytes,
                "memory_used_bytes": gpu.memory_used_bytes,
                "memory_unified": gpu.unified,
                "holders": [
                    {
                        "pid": held.pid,
                        "known": held.known,
                        "memory_bytes": held.memory_bytes,
                        "command": held.command or None,
                        "user": held.user or None,
                        "age_s": held.age_s,
                        "orphan": held.orphan,
                        "engine": held.engine,
                    }
                    for held in seen.holders
                    if held.gpu == gpu.index
                ],
            }
            for gpu in seen.gpus
        ],
        "gpu_openers": [{"pid": pid, "command": command} for pid, command in seen.openers.items()],
        "engines": [
            {
                "engine": engine.kind,
                "program": engine.program,
                "version": engine.version,
                "remembered": engine.remembered,
            }
            for engine in seen.installed
        ],
        "ports": [
            {"port": use.port, "engine": use.engine, "pid": use.pid, "holder": use.holder or None}
            for use in seen.ports
        ],
        "state": {
            "folder": seen.state.folder,
            "writable": seen.state.writable,
            "free_bytes": seen.state.free_bytes,
            "socket_folder": seen.state.socket_folder,
            "socket_mode": None
            if seen.state.socket_mode is None
            else f"{seen.state.socket_mode:04o}",
            "problems": [
                {"name": one.name, "path": one.path, "text": one.message, "hint": one.hint}
                for one in seen.state.problems
            ],
            "exposed": [
                {"path": str(one.path), "text": one.text, "hint": one.hint}
                for one in seen.state.exposed
            ],
        },
        "orphans": [
            {
                "pid": one.pid,
                "title": one.title,
                "user": one.user,
                "age_s": one.age_s,
                "memory_bytes": one.memory_bytes,
                "pids": list(one.pids),
            }
            for one in seen.orphans
        ],
    }
