"""A real vLLM that serves over TLS with a certificate of its own; and one whose core hangs.

The tests run in order, on one engine: its start takes most of a minute.
"""

from __future__ import annotations

import subprocess
import urllib.request
from pathlib import Path

import pytest

from llmtop.trust import Trust
from tests.engines_live import vllm_served
from tests.engines_live.conftest import HERE, Start
from tests.engines_live.engine import Engine
from tests.engines_live.scenario import NAME, drained, seen, told
from tests.llmtop_process import Home, command

HANGING = HERE / "hanging"
CERTIFICATE = HERE.parent / "data" / "tls" / "signed.pem"
LOAD = ("--no-calibrate", "--json", "--prompt-tokens", "32", "--output-tokens", "100")


@pytest.fixture(scope="module")
def sign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that holds the engine's core while it is there."""
    return tmp_path_factory.mktemp("hang") / "hang"


@pytest.fixture(scope="module")
def engine(start_vllm: Start, sign: Path) -> Engine:
    return start_vllm(
        *vllm_served.ONE_PROCESS,
        *("--ssl-certfile", str(CERTIFICATE), "--ssl-keyfile", str(CERTIFICATE)),
        path=(HANGING,),
        LLMTOP_TEST_HANG=str(sign),
    )


def healthy(url: str) -> bool:
    context = Trust(pinned=str(CERTIFICATE)).context()
    with urllib.request.urlopen(f"{url}/health", timeout=10, context=context) as answer:
        return bool(answer.status == 200)


def test_it_is_started_watched_and_loaded_over_https(engine: Engine) -> None:
    home = engine.home
    assert engine.url.startswith("https://127.0.0.1:") and healthy(engine.url)
    assert (told(home)["state"], told(home)["url"]) == ("ready", engine.url)
    for target in (NAME, engine.url):
        seen_once = home.run("once", target, "--window", "1", "--json")
        assert seen_once.code == 0, seen_once.err
        assert (seen_once.json["name"], seen_once.json["stale"]) == (NAME, False)
        load = home.run("load", target, "--shape", "hold 2 for 3s", *LOAD)
        assert load.json["requests"]["ok"] > 0 and load.json["errors"] == {}, load.err


def test_who_does_not_know_the_certificate_is_told_why(engine: Engine, tmp_path: Path) -> None:
    stranger = Home.make(tmp_path)

    def told_why() -> bool:
        refused = stranger.run("once", engine.url)
        assert refused.code == 1
        return "its certificate is not trusted" in refused.err and "SSL_CERT_FILE" in refused.err

    seen(told_why)  # on a crowded machine an answer may not come in time
    trusted = stranger.run("once", engine.url, "--window", "1", "--cacert", str(CERTIFICATE))
    assert trusted.code == 0, trusted.err


def test_a_core_that_hangs_while_its_front_end_answers_is_hung(engine: Engine, sign: Path) -> None:
    home = engine.home
    shape = ("--shape", "hold 4 for 600s")
    with subprocess.Popen(
        command("load", NAME, *shape, *LOAD),
        env=home.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as load:
        try:
            seen(lambda: busy(engine))
            sign.touch()
            frozen = home.run("once", NAME, "--json")
            assert frozen.code == 1, frozen.out
            assert frozen.json["stale"] is True and frozen.json["running"] > 0
            assert "hung" in [one["name"] for one in frozen.json["conditions"]]
            assert healthy(engine.url) and told(home)["state"] == "ready"
        finally:
            sign.unlink(missing_ok=True)
        seen(lambda: home.run("once", NAME, "--window", "1").code == 0)
        assert drained(load)["requests"]["failed"] == 0


def busy(engine: Engine) -> bool:
    return bool(engine.home.run("once", NAME, "--window", "0.3", "--json").json["running"])
