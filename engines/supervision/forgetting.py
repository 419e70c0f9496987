"""Deletes the record, the journals and the logs of an ended engine."""

from __future__ import annotations

from pathlib import Path

from llmtop import LlmtopError
from llmtop.engines.host.processes import Processes, identity
from llmtop.engines.host.termination import remove_socket
from llmtop.engines.state.state_directory import (
    ForeignState,
    NewerRecord,
    StateDirectory,
    StateError,
)

LOCK_WAIT_S = 2.0


def forget(name: str, state: StateDirectory, processes: Processes) -> None:
    """Remove all files of an engine, including a damaged record.

    Raises LlmtopError while a process of it runs: only the record identifies it. StateError when it
    cannot be removed, or belongs to another user or a newer llmtop.
    """
    with state.lock(name, wait_s=LOCK_WAIT_S):
        try:
            record = state.load(name)
        except (ForeignState, NewerRecord):
            raise
        except StateError:
            record = None
        log = state.log_path(name)
        running = processes.writers(log)
        if record is not None:
            running += processes.members(identity(record), Path(record.log_path))
        if running:
            pids = ", ".join(sorted({str(one.pid) for one in running}))
            raise LlmtopError(f"{name!r} still runs (pid {pids})", f"llmtop stop {name}")
        if record is not None:
            remove_socket(record.live_socket)
        _remove(state.folder(name))


def remembers(state: StateDirectory, name: str) -> bool:
    """Whether a record of this name exists, valid or damaged."""
    return (state.folder(name) / "record.json").is_file()


def _remove(folder: Path) -> None:
    """Remove the files in an engine's folder, and the folder. It has no subfolders."""
    try:
        # The record first: without it no llmtop treats the rest as an engine.
        (folder / "record.json").unlink(missing_ok=True)
        for path in folder.iterdir():
            if not path.is_dir() or path.is_symlink():
                path.unlink()
        folder.rmdir()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise StateError(f"{folder} cannot be removed: {why}", "remove it yourself") from error
