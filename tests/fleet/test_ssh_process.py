"""Commands and the dashboard of another machine, through a real sshd on this one."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.llmtop_process import Home, command, free_port
from tests.terminal import Terminal

pytestmark = [pytest.mark.process, pytest.mark.more]
PATIENCE_S = 180.0  # ssh, a shell and llmtop, beside other work
ME = pwd.getpwuid(os.getuid()).pw_name


def sshd() -> str:
    found = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
    if found is None or shutil.which("ssh") is None:
        no_sshd("sshd is not installed (apt-get install openssh-server)")
    return found


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The machine on the other side: an engine in a home of its own."""
    sshd()
    home = Home.make(tmp_path_factory.mktemp("there"))
    port = str(free_port())
    done = home.run(
        "run", "sim", "--detach", "--name", "far", "--port", port, "--", "--startup-s", "0"
    )
    assert done.code == 0, done.err
    yield home
    home.stop_all()


@pytest.fixture(scope="module")
def here(there: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose ``ssh`` gets to the other one, and that knows no engine itself."""
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    port = free_port()
    keys = folder / "authorized_keys"
    keys.write_text((folder / "user.pub").read_text())
    keys.chmod(0o600)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {keys}\nStrictModes no\nUsePAM no\nPidFile none\n"
        "PermitRootLogin yes\nPasswordAuthentication no\n"
    )
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "config").write_text(
        f"Host gpu-7\n  HostName 127.0.0.1\n  Port {port}\n  User {ME}\n"
        f"  IdentityFile {folder / 'user'}\n  UserKnownHostsFile {folder / 'known'}\n"
    )
    # OpenSSH looks for its configuration where the user lives, whatever HOME says.
    (folder / "bin").mkdir()
    script(folder / "bin" / "ssh", f'exec {shutil.which("ssh")} -F {folder / "config"} "$@"')
    variables = " ".join(f"{name}='{text}'" for name, text in there.environ.items())
    script(folder / "llmtop", f'exec env {variables} {sys.executable} -m llmtop "$@"')
    if os.getuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # which sshd wants to find when root runs it
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [sshd(), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log
        )
    try:
        listening(port, daemon, folder / "log")
        let_in(folder / "bin" / "ssh")
        home = tmp_path_factory.mktemp("here")
        yield Home.make(
            home,
            {
                "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
                "LLMTOP_SSH_PROGRAM": str(folder / "llmtop"),
            },
        )
    finally:
        daemon.terminate()
        daemon.wait(60)


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def let_in(ssh: Path) -> None:
    """Skip where this machine's sshd lets nobody in by key, such as a user without a login."""
    done = subprocess.run(
        [str(ssh), "-o", "BatchMode=yes", "gpu-7", "true"],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    if done.returncode:
        no_sshd(f"the sshd of this machine does not let {ME} in: {done.stderr.strip()}")


def no_sshd(reason: str) -> NoReturn:
    """Skip, unless the variable says that an sshd must be here."""
    if os.environ.get("LLMTOP_REQUIRE_SSHD") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def listening(port: int, daemon: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(900):
        assert daemon.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("sshd does not listen")


def test_it_lists_the_engines_there(here: Home) -> None:
    assert here.run("ps", "--json").json["engines"] == []
    done = here.run("ps", "ssh://gpu-7", "--json", timeout=PATIENCE_S)
    assert done.code == 0, done.err
    assert [one["name"] for one in done.json["engines"]] == ["far"]


def test_it_changes_an_option_there(here: Home, there: Home) -> None:
    done = here.run("set", "ssh://gpu-7/far", "max_num_seqs=32", "--json", timeout=PATIENCE_S)
    assert done.code == 0, done.err
    options = there.run("options", "far", "--json").json["options"]
    (value,) = [one["value"] for one in options if one["name"] == "max_num_seqs"]
    assert value == 32


def test_it_says_why_an_engine_there_is_slow(here: Home) -> None:
    done = here.run("why", "ssh://gpu-7/far", "--json", timeout=PATIENCE_S)
    assert done.code == 0, done.err
    assert done.json["name"] == "far" and done.json["causes"]


def test_exit_codes_and_messages_come_back(here: Home) -> None:
    done = here.run("set", "ssh://gpu-7/nobody", "max_num_seqs=32", timeout=PATIENCE_S)
    assert done.code == 2 and "nobody" in done.err
    done = here.run("ps", "ssh://nowhere.invalid", timeout=PATIENCE_S)
    assert done.code == 1 and "ssh did not get to nowhere.invalid" in done.err


def test_the_shell_there_runs_nothing_else(here: Home, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    done = here.run("set", "ssh://gpu-7/far", f"max_num_seqs=$(touch {trap})", timeout=PATIENCE_S)
    assert done.code == 2 and not trap.exists()


def test_the_dashboard_there(here: Home) -> None:
    with Terminal(command("ssh://gpu-7"), here.environ) as terminal:
        terminal.see("far", PATIENCE_S)
        terminal.type("q")
        terminal.see("stay", PATIENCE_S)
        terminal.type("q")
        assert terminal.wait(PATIENCE_S) == 0
