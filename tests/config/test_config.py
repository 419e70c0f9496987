"""The operator's file: what it means, what is wrong in it and where, and what is refused."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llmtop import UsageError
from llmtop.config.engines import launch_spec
from llmtop.config.faults import ConfigError
from llmtop.config.file import Config, chosen, load
from llmtop.config.schema import schema
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.supervision.placement import crowded
from llmtop.loadgen.workload.plan import Prompts
from tests.folders import ROOT

DOCS = ROOT / "docs"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def put(text: str) -> Path:
        (tmp_path / "llmtop.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
        return Path("llmtop.toml")

    return put


def refused(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value


def example() -> str:
    page = DOCS / "reference" / "configuration.md"
    found = re.search(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_documented_example_is_read_as_it_says(write: Write, tmp_path: Path) -> None:
    config = load(write(example()))
    (tmp_path / "big.key").write_text("k-secret-1\n")
    python = tmp_path / "home" / "venvs" / "vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path / "home"))
        spec = launch_spec(config, "big", {"HF_TOKEN": "hf-secret-2"})
    assert (spec.kind, spec.name, spec.model) == ("vllm", "big", "meta-llama/Llama-3.1-8B-Instruct")
    assert (spec.host, spec.port, spec.gpus) == ("127.0.0.1", 8000, (0,))
    assert spec.program == (str(python), "-m", "vllm.entrypoints.cli.main")
    assert spec.args == ("--max-num-seqs", "512", "--max-model-len", "16384")
    assert dict(spec.environment) == {
        "VLLM_LOGGING_LEVEL": "DEBUG",
        "HF_TOKEN": "hf-secret-2",
        "VLLM_API_KEY": "k-secret-1",
    }
    assert spec.api_key_file == str(tmp_path / "big.key")
    assert "secret" not in repr(spec)
    small = launch_spec(config, "small", {})
    assert (small.model, small.port, small.program) == ("llama-3.1-8b", 0, ())
    assert config.shape("@knee") == "double 1..256 every 15s"
    assert config.shape("hold 3") == "hold 3"
    assert config.prompts("chat") == Prompts(
        (448, 576), (112, 144), shared_prefix_tokens=256, shared_prefix_share=0.9, temperature=0.7
    )
    parrot = Prompts(prompt_tokens=(256, 256), repetitive=True, text=True)
    assert config.prompts("@parrot") == parrot
    talk = config.prompts("talk")
    assert (talk.turns, talk.think_s) == (6, (1.0, 5.0))
    assert json.loads(config.prompts("answers").json_schema)["type"] == "object"
    recorded = config.prompts("recorded")
    assert (recorded.dataset, recorded.ignore_eos) == (str(tmp_path / "sharegpt.json"), False)
    crowd = config.shape_table("@crowd")
    assert (crowd.shape, crowd.loop, crowd.arrival, crowd.burstiness) == (
        "hold 20 for 60s", "open", "gamma", 0.5,
    )  # fmt: skip
    yesterday = config.shape_table("@yesterday")
    assert yesterday.shape == f'trace "{tmp_path}/yesterday.csv" speed 2 for 10m'
    assert yesterday.loop == "open"
    assert config.slo("interactive") == {"ttft": 0.5, "tpot": 0.05}
    screen = config.table.screen
    assert (screen.theme, screen.interval, screen.ascii, screen.readonly) == (
        "dark", 1.0, False, False,
    )  # fmt: skip
    assert (screen.gpu_hour, screen.low_bandwidth) == (3.5, False)


def test_the_published_schema_is_that_of_the_tables() -> None:
    published = json.loads((DOCS / "llmtop.schema.json").read_text())
    assert published == json.loads(json.dumps(schema())), "out of date: make schema"


def test_the_schema_knows_every_key_of_the_example() -> None:
    engine = schema()["$defs"]["EngineTable"]
    assert engine["additionalProperties"] is False
    assert set(re.findall(r"^(\w+) = ", example(), re.MULTILINE)) <= {
        name for table in schema()["$defs"].values() for name in table["properties"]
    } | {"knee", "lunch", "yesterday"}
    assert "vllm" in engine["properties"]["engine"]["enum"]


SIM = '[engines.a]\nengine = "sim"\n'


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("a = [", "llmtop.toml:1: this is not TOML: ", ""),
        ("[x]\ny = 1\ny = 2", "llmtop.toml:3: this is not TOML: cannot overwrite a value", ""),
        ("# \udcff", "llmtop.toml:1: this is not UTF-8; a TOML file must be", ""),
        ("[engine.a]", "llmtop.toml:1: engine: there is no such key", "did you mean engines?"),
        (
            SIM + 'gpus = "0"',
            "llmtop.toml:3: engines.a.gpus: expected a list of whole numbers",
            "",
        ),
        (
            SIM + "gpus = [0,\n  -1]",
            "llmtop.toml:4: engines.a.gpus[1]: expected a whole number from 0 to 1023",
            "",
        ),
        (SIM + "gpus = [1, 1]", "llmtop.toml:3: engines.a.gpus: a GPU is in the list twice", ""),
        (
            SIM + "port = 70000",
            "llmtop.toml:3: engines.a.port: expected a whole number from 0 to 65535",
            "",
        ),
        (SIM + "args = [1]", "llmtop.toml:3: engines.a.args[0]: expected text in quotes", ""),
        (SIM + 'args = "x"', "llmtop.toml:3: engines.a.args: expected a list of texts", ""),
        (
            SIM + "env = { A = 1 }",
            "llmtop.toml:3: engines.a.env.A: expected text in quotes",
            "",
        ),
        (SIM + "gpu = [0]", "llmtop.toml:3: engines.a.gpu: there is no such key", "gpus?"),
        (
            SIM + "colour = 1",
            "llmtop.toml:3: engines.a.colour: there is no such key",
            "known keys: ",
        ),
        ("[engines.a]\nport = 1", "llmtop.toml:1: engines.a: the key engine is missing", ""),
        ("[engines]\na = 3", "llmtop.toml:2: engines.a: expected a table", ""),
        ("engines = 3", "llmtop.toml:1: engines: expected a table", ""),
        (
            '[engines.a]\nengine = "vlm"',
            "llmtop.toml:2: engines.a.engine: there is no engine 'vlm'",
            "did you mean vllm?",
        ),
        (
            '[engines.a]\nengine = "vllm"',
            "llmtop.toml:1: engines.a: the key model is missing: vllm needs one",
            "",
        ),
        (
            '[engines."a b"]\nengine = "sim"',
            "llmtop.toml:1: engines.\"a b\": 'a b' cannot be an engine's name",
            "letters",
        ),
        (
            '[engines.vllm]\nengine = "vllm"\nmodel = "m"',
            "llmtop.toml:1: engines.vllm: this is the name of a kind of engine",
            "vllm-1",
        ),
        (
            SIM + 'python = "p"\nbin = "b"',
            "llmtop.toml:4: engines.a.bin: python is already set; set only one of the two",
            "",
        ),
        (
            SIM + 'prompts = "x"',
            "llmtop.toml:3: engines.a.prompts: there is no [prompts.x]",
            "",
        ),
        (
            '[engines.a]\nengine = "tensorrt-llm"\nmodel = "m"\napi_key_file = "k"',
            "llmtop.toml:4: engines.a.api_key_file: TensorRT-LLM cannot get a key",
            "LLMTOP_API_KEY",
        ),
        (
            SIM + 'env = { HF_TOKEN = "hf-hush" }',
            "llmtop.toml:3: engines.a.env.HF_TOKEN: a secret does not belong in this file",
            'env_from = ["HF_TOKEN"]',
        ),
        (
            SIM + 'args = ["--x",\n"--api-key", "hush"]',
            "llmtop.toml:4: engines.a.args[2]: a secret does not belong in this file",
            "api_key_file",
        ),
        (
            SIM + 'args = ["--api-key=hush"]',
            "llmtop.toml:3: engines.a.args[0]: a secret does not belong in this file",
            "api_key_file",
        ),
        (
            SIM + 'env = { HTTPS_PROXY = "http://ann:hush@proxy:3128" }',
            "llmtop.toml:3: engines.a.env.HTTPS_PROXY: a secret does not belong in this file",
            'env_from = ["HTTPS_PROXY"]',
        ),
        (
            SIM + 'env = { "A=B" = "x" }',
            'llmtop.toml:3: engines.a.env."A=B": this is not the name of an environment variable',
            "",
        ),
        (
            SIM + 'env_from = ["LLMTOP_API_KEY"]',
            "llmtop.toml:3: engines.a.env_from[0]: variables that begin with LLMTOP_ are reserved",
            "",
        ),
        (
            SIM + 'gpus = [0]\nenv = { CUDA_VISIBLE_DEVICES = "1" }',
            "llmtop.toml:4: engines.a.env.CUDA_VISIBLE_DEVICES: the GPUs are set twice",
            "",
        ),
        (
            SIM + 'env = { A = "\\u0000" }',
            "llmtop.toml:3: engines.a.env.A: a variable cannot hold a NUL character",
            "",
        ),
        (
            SIM + 'env = { A = "x" }\nenv_from = ["A"]',
            "llmtop.toml:3: engines.a.env.A: it is also in env_from; set it in one place",
            "",
        ),
        (
            '[shapes]\na = "hold 1"\nb = "rmp 1..2"',
            "llmtop.toml:3: shapes.b: cannot read 'rmp 1..2' in the load shape",
            "ramp",
        ),
        (
            '[shapes]\n"@a" = "1"',
            "llmtop.toml:2: shapes.\"@a\": '@a' is not a valid name",
            "letters",
        ),
        (
            "[prompts.p]\nprompt_tokens = 0",
            "llmtop.toml:2: prompts.p.prompt_tokens: this is not a length in tokens",
            "448..576",
        ),
        (
            "[prompts.p]\noutput_tokens = 3000000",
            "llmtop.toml:2: prompts.p.output_tokens: output_tokens 3000000..3000000 is no range",
            "",
        ),
        (
            "[prompts.p]\nprompt_tokens = 1.5",
            "llmtop.toml:2: prompts.p.prompt_tokens: expected a whole number or text in quotes",
            "",
        ),
        (
            "[prompts.p]\nshared_prefix_tokens = -1",
            "llmtop.toml:2: prompts.p.shared_prefix_tokens: expected a whole number, at least 0",
            "",
        ),
        (
            '[prompts.p]\nrepetitive = "yes"',
            "llmtop.toml:2: prompts.p.repetitive: expected true or false",
            "",
        ),
        (
            '[slos.s]\nttft = "fast"',
            "llmtop.toml:2: slos.s.ttft: this is not a duration above 0",
            "500ms",
        ),
        (
            '[slos.s]\nttft = "0s"',
            "llmtop.toml:2: slos.s.ttft: this is not a duration above 0",
            "500ms",
        ),
        ("[slos.s]", "llmtop.toml:1: slos.s: it sets no limit", "500ms"),
        (
            "[screen]\ninterval = 0",
            "llmtop.toml:2: screen.interval: expected a number from 0.2 to 60",
            "",
        ),
        (
            '[shapes.x]\nshape = "hold 3"\nloop = "round"',
            "llmtop.toml:3: shapes.x.loop: expected closed or open",
            "",
        ),
        (
            '[shapes.x]\nshape = "wobble 3"',
            "llmtop.toml:2: shapes.x.shape: cannot read 'wobble 3'",
            "pieces are",
        ),
        (
            '[shapes.x]\nshape = "trace x.csv"\nloop = "closed"',
            "llmtop.toml:3: shapes.x.loop: a trace needs",
            "",
        ),
        (
            '[shapes.x]\nshape = "hold 3"\nloops = "open"',
            "llmtop.toml:3: shapes.x.loops: there is no such key",
            "did you mean loop?",
        ),
        (
            '[prompts.p]\nthink = "3x"',
            "llmtop.toml:2: prompts.p.think: this is not a pause",
            "500ms..3s",
        ),
        (
            '[prompts.p]\ndataset = "x"\nrepetitive = true',
            "llmtop.toml:1: prompts.p: the prompts of a dataset are sent as they are",
            "",
        ),
        (
            "[screen]\ninterval = nan",
            "llmtop.toml:2: screen.interval: expected a number from 0.2 to 60",
            "",
        ),
        (
            '[screen]\ninterval = 1\n[shapes]\nb = 3\n[engines.x]\nengine = "no"',
            "llmtop.toml:4: shapes.b: expected text in quotes",
            "",
        ),
    ],
)
def test_every_mistake_names_file_line_and_key(
    write: Write, text: str, message: str, hint: str
) -> None:
    error = refused(write(text))
    assert error.message.startswith(message), error.message
    assert hint in error.hint
    assert "hush" not in error.message + error.hint


def test_windows_line_ends_and_deep_nesting_do_not_shift_or_break_lines(write: Write) -> None:
    assert refused(write('[engines.a]\r\nengine = "sim"\r\nport = "x"\r\n')).line == 3
    assert refused(write("x = " + "[" * 20000 + "]" * 20000)).line == 1


def test_a_mark_that_an_editor_put_before_the_text_is_no_fault(write: Write) -> None:
    assert load(write("\ufeff[engines.a]\nengine = 'sim'\n")).table.engines.keys() == {"a"}


def test_what_is_no_file_is_said_so(write: Write, tmp_path: Path) -> None:
    for path, words in ((tmp_path, "is a directory"), (Path("nope.toml"), "no such file")):
        with pytest.raises(UsageError, match=words):
            load(path)
    with pytest.raises(UsageError, match="longer than"):
        load(write("#" * (1 << 20) + "\n"))


def test_the_file_is_looked_for_in_order(write: Write, tmp_path: Path) -> None:
    assert chosen(None) == Config()
    with pytest.raises(UsageError, match=r"there is no llmtop\.toml") as none:
        chosen(None, need=True)
    assert str(tmp_path / "config") in none.value.message
    home = tmp_path / "config" / "llmtop"
    home.mkdir(parents=True)
    (home / "llmtop.toml").write_text('[shapes]\nwhich = "hold 1"')
    assert chosen(None).shape("@which") == "hold 1"
    write('[shapes]\nwhich = "hold 2"')
    assert chosen(None).shape("@which") == "hold 2"
    (tmp_path / "own.toml").write_text('[shapes]\nwhich = "hold 3"')
    assert chosen("own.toml").shape("@which") == "hold 3"


def test_a_pipe_is_read_only_where_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("llmtop.toml")
    with pytest.raises(UsageError, match=r"llmtop\.toml is a pipe") as refused:
        chosen(None)
    assert "--config" in refused.value.hint
    writer = threading.Thread(
        target=lambda: Path("llmtop.toml").write_text("[screen]\nascii = true\n")
    )
    writer.start()
    assert chosen("llmtop.toml").table.screen.ascii
    writer.join()


def test_an_unknown_name_is_refused_with_what_there_is(write: Write) -> None:
    config = load(write(SIM + '[shapes]\nknee = "hold 1"'))
    for ask, message, hint in (
        (lambda: config.engine("b"), "does not define an engine 'b'", "there are: a"),
        (lambda: config.shape("@kne"), "does not define a shape 'kne'", "did you mean knee?"),
        (
            lambda: config.prompts("p"),
            "does not define a set of prompts 'p'",
            "it has no [prompts]",
        ),
        (lambda: Config().slo("s"), "an SLO 's' is not known: there is no llmtop.toml", "--config"),
    ):
        with pytest.raises(UsageError) as caught:
            ask()
        assert message in caught.value.message
        assert hint in caught.value.hint


def test_what_this_machine_lacks_is_said_with_its_line(write: Write, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for line, words in (
        ('env_from = ["NOT_SET"]', "env_from[0]: NOT_SET is not set in this environment"),
        ('bin = "./none"', "bin: there is no program './none'"),
        ('python = "no-such-python"', "python: there is no program 'no-such-python'"),
        ('api_key_file = "nokey"', f"key file {tmp_path / 'nokey'} cannot be read: no such file"),
        ('api_key_file = "empty"', "does not hold an API key"),
    ):
        config = load(write(SIM + line))
        with pytest.raises(ConfigError) as caught:
            launch_spec(config, "a", {})
        assert caught.value.message.startswith("llmtop.toml:3: engines.a.")
        assert words in caught.value.message


def test_relative_paths_start_from_the_files_folder(write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "engine").symlink_to(sys.executable)
    text = '[engines.a]\nengine = "vllm"\nmodel = "./m"\nbin = "bin/engine"'
    (folder / "llmtop.toml").write_text(text)
    write("")
    spec = launch_spec(load(folder / "llmtop.toml"), "a", os.environ)
    assert spec.model == str(folder / "m")
    assert spec.program == (str(folder / "bin" / "engine"),)


def spec(name: str, *gpus: int, kind: str = "vllm") -> LaunchSpec:
    return LaunchSpec(kind, name, "m", "127.0.0.1", 1, gpus=gpus)


def test_engines_on_one_gpu_are_named_with_it() -> None:
    assert crowded([spec("a", 0), spec("b", 1)]) == ()
    (line,) = crowded([spec("a", 0, 1), spec("b", 1, 2), spec("c", 3)])
    assert line.startswith("a and b share GPU 1: ")
    (line,) = crowded([spec("a", 0, 1), spec("b", 0, 1), spec("c", 0, 1)])
    assert line.startswith("a, b and c share GPUs 0, 1: ")


def test_engines_without_gpus_may_be_on_any_of_those_there_are() -> None:
    (line,) = crowded([spec("a", 1), spec("b")], gpus=2)
    assert line.startswith("a and b may share GPU 1: no GPUs are set for b")
    assert crowded([spec("a", 1), spec("b")], gpus=0) == ()
    assert crowded([spec("a"), spec("s", kind="sim")], {"sim"}, gpus=2) == ()
    assert crowded([spec("a", 0), spec("s", 0, kind="sim")], {"sim"}) != ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"load.mor" = "w"', 'keys."load.mor": the screen has no such command'),
        ('"load.more" = "b"', "keys.\"load.more\": 'b' is already the key of load.burst"),
        ('"load.more" = "hyper"', "keys.\"load.more\": 'hyper' is not a key"),
        ('load.more = "w"', "keys.load: a command with a dot in its name needs quotes"),
        ("options = 3", "keys.options: expected text in quotes"),
    ],
)
def test_other_keys_that_cannot_be_meant_name_their_line(
    tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "llmtop.toml"
    file.write_text(f"[screen]\nmouse = false\n[keys]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.message.startswith(f"{file}:4: {words}")


def test_other_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "llmtop.toml"
    file.write_text('[keys]\n"load.more" = "plus,w"\noptions = "p"\n')
    assert load(file).table.keys == {"load.more": "plus,w", "options": "p"}
