"""The checkup: on made-up GPUs, and ``llmtop doctor`` itself beside real orphans."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llmtop.cli.engines.checklist import print_checkup
from llmtop.engines import doctor
from llmtop.engines.core.samples import GpuProcess
from llmtop.engines.doctor import Doctor, Weight
from llmtop.engines.gpu.devices import Gpus
from llmtop.engines.gpu.driver_mismatch import mismatch_words
from llmtop.engines.gpu.memory_guard import GpuMemory
from llmtop.engines.gpu.nvml import NvmlError
from llmtop.engines.host import permissions
from llmtop.engines.host.processes import Processes
from llmtop.engines.registry import ADAPTERS
from llmtop.engines.state.state_directory import StateDirectory
from llmtop.values import replace
from tests.fake_nvml import FakeGpu, FakeNvml
from tests.llmtop_process import Home
from tests.orphaned import gone, orphan

pytestmark = pytest.mark.process

GIB = 2**30
NO_DRIVER = NvmlError("no NVIDIA driver found", gone=True)


def gpu(pid: int | None, gib: int, uuid: str = "GPU-0") -> FakeGpu:
    held = (GpuProcess(pid, gib * GIB),) if pid is not None else ()
    return FakeGpu(uuid=uuid, memory=(140 * GIB, gib * GIB), processes=held)


def examined(
    folder: Path,
    *gpus: FakeGpu,
    broken: NvmlError | None = None,
    host_pids: bool = True,
    engines: dict[int, str] | None = None,
    path: str = "",
    state: StateDirectory | None = None,
    config: tuple[Path, ...] = (),
) -> Doctor:
    processes, reader = Processes(), Gpus(FakeNvml(*gpus, broken=broken))
    return doctor.examine(
        state or StateDirectory(folder / "state", folder / "sockets"),
        ADAPTERS,
        gpus=reader,
        memory=GpuMemory(reader, processes, host_pids=host_pids),
        processes=processes,
        engines=engines or {},
        path=path,
        config=config,
    )


def said(seen: Doctor, weight: Weight | None = None) -> str:
    return "\n".join(
        f"{f.text} | {f.hint}" for f in seen.findings if weight is None or f.weight is weight
    )


def test_a_machine_with_free_gpus(tmp_path: Path) -> None:
    seen = examined(tmp_path, gpu(None, 0))
    assert (seen.driver, seen.cuda) == ("580.95.05", "13.0")
    assert not seen.blocked
    assert "GPU" not in said(seen)
    assert seen.state.writable and seen.state.socket_mode == 0o700
    assert list((tmp_path / "state").iterdir()) == []


def test_a_gpu_full_of_an_orphan_blocks_and_the_way_out_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with orphan() as pid:
        seen = examined(tmp_path, gpu(pid, 130))
        assert seen.blocked
        assert f"pid {pid} (orphaned VLLM::EngineCore" in said(seen)
        assert f"free it with: llmtop doctor --end {pid}" in said(seen)
        # With a second one free an engine can start.
        assert not examined(tmp_path, gpu(pid, 130), gpu(None, 0, "GPU-1")).blocked
        print_checkup(seen)
    shown = capsys.readouterr().out
    assert "NVIDIA 580.95.05, CUDA up to 13.0" in shown
    assert "130.0 of 140.0 GiB used, 10.0 free" in shown
    assert "blocks   no GPU has half of its memory free" in shown


def test_our_own_engine_on_the_gpu_is_no_finding(tmp_path: Path) -> None:
    seen = examined(tmp_path, gpu(os.getpid(), 130), engines={os.getpid(): "llama"})
    assert seen.holders[0].engine == "llama"
    assert "GPU" not in said(seen)
    assert not seen.blocked


def test_in_a_container_it_says_that_pids_mean_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = examined(tmp_path, gpu(os.getpid(), 130), host_pids=False)
    assert [h.known for h in seen.holders] == [False]
    assert "pytest" not in said(seen)
    print_checkup(seen)
    assert "this is a container" in capsys.readouterr().out


def test_no_driver_warns_and_does_not_block(tmp_path: Path) -> None:
    seen = examined(tmp_path, broken=NO_DRIVER)
    assert not seen.blocked
    assert "no NVIDIA driver found | without a GPU only the simulated" in said(seen, Weight.WARNS)


def test_a_state_folder_that_cannot_be_written_blocks(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = StateDirectory(tmp_path / "file" / "state", tmp_path / "sockets")
    seen = examined(tmp_path, broken=NO_DRIVER, state=state)
    assert seen.blocked and not seen.state.writable
    assert "XDG_STATE_HOME" in said(seen, Weight.BLOCKS)


def test_a_full_disk_blocks(tmp_path: Path) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    state = StateDirectory(tmp_path / "state", tmp_path / "sockets", write=full)
    assert examined(tmp_path, broken=NO_DRIVER, state=state).blocked


def test_damaged_records_are_listed(tmp_path: Path) -> None:
    record = tmp_path / "state" / "engines" / "bad" / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{")
    seen = examined(tmp_path, broken=NO_DRIVER)
    assert [problem.name for problem in seen.state.problems] == ["bad"]
    assert "record of 'bad' is damaged" in said(seen, Weight.WARNS)


def test_folders_that_others_may_write_are_named_with_the_way_out(tmp_path: Path) -> None:
    state, config = StateDirectory(tmp_path / "state", tmp_path / "sockets"), tmp_path / "llmtop"
    engine = state.make_folder("big")
    config.mkdir(mode=0o700)
    file = config / "llmtop.toml"
    file.touch(mode=0o600)

    def exposed() -> list[tuple[str, str]]:
        seen = examined(tmp_path, broken=NO_DRIVER, state=state, config=(config, file))
        assert not seen.blocked
        return [(f.text, f.hint) for f in seen.findings if str(tmp_path) in f.text]

    assert exposed() == []
    for path, mode, who in (
        (state.root, 0o777, "its group and everybody"),
        (engine, 0o702, "everybody"),
        (config, 0o720, "its group"),
        (file, 0o666, "its group and everybody"),
    ):
        before = path.stat().st_mode
        path.chmod(mode)
        ((text, hint),) = exposed()
        assert text == f"{path} can be written by {who} (mode {mode:04o})"
        assert hint == f"chmod go-w {path}"
        path.chmod(before)
    assert exposed() == []


def test_a_state_folder_of_somebody_else_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDirectory(tmp_path / "state", tmp_path / "sockets")
    state.make_folder("big")
    owner = state.root.stat().st_uid
    monkeypatch.setattr(permissions, "geteuid", lambda: owner + 4242)
    monkeypatch.setattr(permissions, "TRUSTED", ())
    seen = examined(tmp_path, broken=NO_DRIVER, state=state)
    assert f"{state.root} belongs to the user" in said(seen, Weight.WARNS)
    assert f"chown -R {owner + 4242} {state.root}" in said(seen, Weight.WARNS)


def test_an_old_engine_is_said_to_be_old(tmp_path: Path) -> None:
    for version, old in (("0.9.2", True), ("0.20.0+cu129", False), ("0.32.0", False)):
        bin = tmp_path / version / "bin"
        metadata = tmp_path / version / f"lib/python3.12/site-packages/vllm-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Name: vllm\nVersion: {version}\n")
        bin.mkdir()
        (bin / "vllm").touch(0o755)
        seen = examined(tmp_path, broken=NO_DRIVER, path=str(bin))
        assert [engine.version for engine in seen.installed] == [version]
        assert ("is older than what llmtop was built for" in said(seen)) is old


def test_an_engines_default_port_in_other_hands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        adapters = {"vllm": replace(ADAPTERS["vllm"], default_port=port)}
        monkeypatch.setattr("tests.cli.engines.test_doctor.ADAPTERS", adapters)
        seen = examined(tmp_path, broken=NO_DRIVER)
    assert [(use.port, use.pid, use.engine) for use in seen.ports] == [(port, os.getpid(), None)]
    assert f"llmtop attach :{port}" in said(seen)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path)


def test_doctor_lists_an_orphan_and_ends_it_when_it_is_told_to(home: Home) -> None:
    with orphan() as pid:
        done = home.run("doctor", "--json")
        (found,) = [one for one in done.json["orphans"] if one["pid"] == pid]
        assert found["title"].startswith("VLLM::EngineCore")
        assert found["pids"] == [pid]
        assert f"llmtop doctor --end {pid}" in home.run("doctor").out
        refused = home.run("doctor", "--end", str(pid), stdin="n\n")
        assert refused.code == 1
        assert "VLLM::EngineCore" in refused.err
        assert Path(f"/proc/{pid}").exists()
        unasked = home.run("doctor", "--end", str(pid), stdin="")
        assert unasked.code == 1
        assert Path(f"/proc/{pid}").exists()
        ended = home.run("doctor", "--end", str(pid), stdin="y\n")
        assert ended.code == 0, ended.err
        assert gone(pid)
    with orphan() as pid:
        assert home.run("doctor", "--end", str(pid), "--yes").code == 0
        assert gone(pid)


def test_doctor_ends_nothing_else(home: Home) -> None:
    done = home.run("doctor", "--end", str(os.getpid()), "--yes")
    assert done.code == 2
    assert "is not an orphan of an engine" in done.err
    assert home.run("doctor", "--end", "7", "--json").code == 2


def test_doctor_exits_with_1_when_something_blocks(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "file").write_text("")
    home = Home.make(tmp_path / "home", {"XDG_STATE_HOME": str(tmp_path / "file" / "state")})
    done = home.run("doctor", "--json")
    assert done.code == 1
    assert done.json["blocked"] is True
    assert done.json["state"]["writable"] is False


def on_unified(folder: Path, used: int, *held: GpuProcess, engines: dict[int, str]) -> Doctor:
    fake = FakeGpu(name="NVIDIA GB10", unified=True, processes=held)
    processes = Processes()
    reader = Gpus(FakeNvml(fake), machine=lambda: (120 * GIB, used * GIB))
    return doctor.examine(
        StateDirectory(folder / "state", folder / "sockets"),
        ADAPTERS,
        gpus=reader,
        memory=GpuMemory(reader, processes, host_pids=True),
        processes=processes,
        engines=engines,
        path="",
    )


def test_unified_memory_is_judged_by_what_the_machine_has_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roomy = on_unified(tmp_path, 30, engines={})
    assert not roomy.blocked and "GPU" not in said(roomy)
    print_checkup(roomy)
    shown = capsys.readouterr().out
    assert "30.0 of 120.0 GiB used, 90.0 free, unified: the machine's memory" in shown
    full = on_unified(tmp_path, 90, engines={})
    assert full.blocked
    assert "GPU 0 has unified memory: 90.0 GiB of 120.0 GiB of the machine are in use" in said(full)
    ours = GpuProcess(os.getpid(), 80 * GIB)
    mine = on_unified(tmp_path, 90, ours, engines={os.getpid(): "llama"})
    assert not mine.blocked and "GPU" not in said(mine)


@pytest.mark.parametrize(
    ("module", "maps", "words"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu\nGCC version: 12",
            "7f0 r-xp 08:01 77 /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05\n7f1 r--p 0",
            "kernel module (570.86.15) and the driver library (580.95.05) are of different",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
            "",
            "kernel module (580.65.06) and the driver library are of different",
        ),
        ("", "7f0 libnvidia-ml.so.1", "kernel module and the driver library are of different"),
    ],
)
def test_a_mismatch_names_both_versions_where_they_are_known(
    module: str, maps: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "version").write_text(module)
    (tmp_path / "maps").write_text(maps)
    assert words in mismatch_words(tmp_path / "version", tmp_path / "maps")
    assert "no engine can use a GPU" in mismatch_words(tmp_path / "none", tmp_path / "none")
