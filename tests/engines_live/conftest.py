"""Real engines for the tests in this folder: built once into a cache, started by llmtop itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.engines_live import sglang_served, vllm_served
from tests.engines_live.engine import Engine
from tests.llmtop_process import Home

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("LLMTOP_ENGINE_CACHE") or Path.home() / ".cache" / "llmtop-engines")
BUILD_LIMIT_S = 1800


class EngineScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """The engines are tested side by side, the tests of each in one process and in their order."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        return file.stem.split("_")[1] if file.parent.name == HERE.name else str(file)


# Not by marks of groups: xdist 3.8 writes them into an id that pytest 9.2 does not look at.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> EngineScheduling:
    """Whatever ``--dist`` says."""
    return EngineScheduling(config, log)


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("LLMTOP_REQUIRE_ENGINES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _built(name: str, script: str) -> Path:
    """The bin folder of a cached environment, built now if it is not there yet."""
    try:
        built = subprocess.run(
            ["bash", str(HERE / script), str(CACHE)],
            capture_output=True,
            text=True,
            timeout=BUILD_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        _unavailable(f"real {name} could not be built within {BUILD_LIMIT_S} s")
    if built.returncode != 0:
        last = (built.stderr.strip().splitlines() or ["no message"])[-1]
        _unavailable(f"real {name} cannot be built here: {last}")
    return Path(built.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def vllm_program() -> Path:
    """The ``vllm`` of the cached environment."""
    return _built("vLLM", "build_vllm.sh") / "vllm"


@pytest.fixture(scope="session")
def older_vllm_program() -> Path:
    """The ``vllm`` of an older version."""
    return _built("older vLLM", "build_older_vllm.sh") / "vllm"


@pytest.fixture(scope="session")
def sglang_python() -> Path:
    """The Python of SGLang's cached environment."""
    return _built("SGLang", "build_sglang.sh") / "python"


@pytest.fixture(scope="session")
def small_model() -> Path:
    """The folder of the tiny model that either build makes."""
    return CACHE / "models" / "small"


@pytest.fixture(scope="session")
def vllm_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Where the vLLM that several modules take over from each other is at home."""
    home = Home.make(tmp_path_factory.mktemp("home"), extra=vllm_served.VARIABLES)
    yield home
    home.stop_all()


@pytest.fixture(scope="session")
def vllm_engine(vllm_home: Home, vllm_program: Path, small_model: Path) -> Engine:
    """It is started once, for a start takes most of a minute; restarts keep its name and port."""
    return Engine.run(vllm_home, "vllm", small_model, vllm_program, *vllm_served.ONE_PROCESS)


@pytest.fixture(scope="session")
def sglang_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The same for SGLang."""
    home = Home.make(
        tmp_path_factory.mktemp("home"), extra=sglang_served.CPU, path=(sglang_served.STAND_INS,)
    )
    yield home
    home.stop_all()


@pytest.fixture(scope="session")
def sglang_engine(sglang_home: Home, sglang_python: Path, small_model: Path) -> Engine:
    """The same for SGLang."""
    return Engine.run(sglang_home, "sglang", small_model, sglang_python, *sglang_served.FLAGS)


Start = Callable[..., Engine]


@pytest.fixture(scope="module")
def start_vllm(
    tmp_path_factory: pytest.TempPathFactory, vllm_program: Path, small_model: Path
) -> Iterator[Start]:
    """``start_vllm(*flags, path=..., VLLM_PLUGINS=...)``: an engine in a home of its own."""
    with ExitStack() as homes:

        def start(*flags: str, path: tuple[Path, ...] = (), **variables: str) -> Engine:
            extra = {**vllm_served.VARIABLES, **variables}
            home = Home.make(tmp_path_factory.mktemp("home"), extra=extra, path=path)
            homes.callback(home.stop_all)
            return Engine.run(home, "vllm", small_model, vllm_program, *flags)

        yield start


@pytest.fixture(scope="module")
def start_sglang(
    tmp_path_factory: pytest.TempPathFactory, sglang_python: Path, small_model: Path
) -> Iterator[Start]:
    """The same for SGLang; flags are added to the usual ones."""
    with ExitStack() as homes:

        def start(*flags: str, path: tuple[Path, ...] = (), **variables: str) -> Engine:
            extra = {**sglang_served.CPU, **variables}
            path = (*path, sglang_served.STAND_INS)
            home = Home.make(tmp_path_factory.mktemp("home"), extra=extra, path=path)
            homes.callback(home.stop_all)
            given = (*sglang_served.FLAGS, *flags)
            return Engine.run(home, "sglang", small_model, sglang_python, *given)

        yield start
