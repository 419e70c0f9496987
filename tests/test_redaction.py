"""Secrets in arguments."""

from __future__ import annotations

import pytest

from llmtop.engines.redaction import HIDDEN, conceal, hide, redact, secrets_in


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (("--api-key", "sk-1", "--port", "1"), ("--api-key", HIDDEN, "--port", "1")),
        (("--api-key", "k1", "k2", "-x"), ("--api-key", HIDDEN, HIDDEN, "-x")),
        (("--api-key=sk-1",), (f"--api-key={HIDDEN}",)),
        (("--hf_token", "hf_1"), ("--hf_token", HIDDEN)),
        (("env", "HF_TOKEN=hf_1", "vllm"), ("env", f"HF_TOKEN={HIDDEN}", "vllm")),
        (("--model", "http://me:pw@host/x"), ("--model", f"http://{HIDDEN}@host/x")),
        (("-H", "Authorization: Bearer abc"), ("-H", f"Authorization: Bearer {HIDDEN}")),
        (("--x", '{"api_key": "abc"}'), ("--x", f'{{"api_key": "{HIDDEN}"}}')),
    ],
)
def test_secret_values_are_hidden(argv: tuple[str, ...], shown: tuple[str, ...]) -> None:
    assert redact(argv) == shown


@pytest.mark.parametrize(
    "argv",
    [
        ("--max-num-batched-tokens", "2048"),
        ("--tokenizer", "x", "--num-speculative-tokens=4"),
        ("--ssl-keyfile", "/etc/key.pem"),
        ("--eos-token", "</s>"),
        ("vllm", "serve", "tiny"),
    ],
)
def test_other_values_are_shown(argv: tuple[str, ...]) -> None:
    assert redact(argv) == argv


def test_secrets_are_found_where_an_engine_prints_them() -> None:
    secrets = secrets_in(("--api-key", "sk-123456", "--hf-token=hf_abcdef", "--token", "x"))
    assert secrets == ("sk-123456", "hf_abcdef")
    line = "args: {'api_key': ['sk-123456'], 'hf_token': 'hf_abcdef'}"
    assert hide(line, secrets) == f"args: {{'api_key': ['{HIDDEN}'], 'hf_token': '{HIDDEN}'}}"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("unrecognized arguments: --api-key abc123", "unrecognized arguments: --api-key [hidden]"),
        ("args: {'api_key': ['abc'], 'tokens': 8}", "args: {'api_key': [hidden], 'tokens': 8}"),
        ("HF_TOKEN=hf_abc is set", "HF_TOKEN=[hidden] is set"),
        ("authorization: Bearer abcdef", "authorization: Bearer [hidden]"),
        ("token usage: 0.02, gen throughput (token/s): 79.96", None),
        ("GPU KV cache size: 919,824 tokens", None),
        ("max_num_batched_tokens=8192, eos-token-id: 3", None),
    ],
)
def test_lines_that_quote_secrets_are_shown_without_them(line: str, shown: str | None) -> None:
    assert conceal(line) == (line if shown is None else shown)
