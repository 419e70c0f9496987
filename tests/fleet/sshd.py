"""A real sshd on this machine, and an ``ssh`` that gets to it as the host ``gpu-7``."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.llmtop_process import free_port

PATIENCE_S = 180.0  # ssh, a shell and llmtop, beside other work
HOST = "gpu-7"


@contextmanager
def running(folder: Path, user: str, program: Path) -> Iterator[dict[str, str]]:
    """Run an sshd that lets a user in: the environment of an llmtop that is to use it.

    folder: one that this user can read. program: what runs llmtop there. The test is skipped where
    no sshd lets this user in.
    """
    server = _sshd()
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    port = free_port()
    keys = folder / "authorized_keys"
    keys.write_text((folder / "user.pub").read_text())
    keys.chmod(0o644)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {keys}\nStrictModes no\nUsePAM no\nPidFile none\n"
        "PermitRootLogin yes\nPasswordAuthentication no\n"
    )
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "config").write_text(
        f"Host {HOST}\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n"
        f"  IdentityFile {folder / 'user'}\n  UserKnownHostsFile {folder / 'known'}\n"
    )
    # OpenSSH looks for its configuration where the user lives, whatever HOME says.
    (folder / "bin").mkdir()
    script(folder / "bin" / "ssh", f'exec {shutil.which("ssh")} -F {folder / "config"} "$@"')
    if os.getuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # which sshd wants to find when root runs it
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [server, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log
        )
    try:
        _wait(port, daemon, folder / "log")
        _try(folder / "bin" / "ssh", user)
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        yield {"PATH": path, "LLMTOP_SSH_PROGRAM": str(program)}
    finally:
        daemon.terminate()
        daemon.wait(60)


def script(path: Path, text: str) -> None:
    """Write a program for the shell."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def skip(reason: str) -> NoReturn:
    """Skip, unless the variable says that an sshd must be here."""
    if os.environ.get("LLMTOP_REQUIRE_SSHD") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _sshd() -> str:
    found = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
    if found is None or shutil.which("ssh") is None:
        skip("sshd is not installed (apt-get install openssh-server)")
    return found


def _try(ssh: Path, user: str) -> None:
    """Skip where this machine's sshd lets nobody in by key, such as a user without a login."""
    done = subprocess.run(
        [str(ssh), "-o", "BatchMode=yes", HOST, "true"],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    if done.returncode:
        skip(f"the sshd of this machine does not let {user} in: {done.stderr.strip()}")


def _wait(port: int, daemon: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(900):
        assert daemon.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("sshd does not listen")
