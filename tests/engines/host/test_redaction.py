"""Secrets in arguments."""

from __future__ import annotations

import pytest

from llmtop.engines.host.redaction import HIDDEN, conceal, hide, redact, secrets_in


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


def test_what_of_an_argument_is_secret_is_found_by_itself() -> None:
    assert secrets_in(("--x", '{"api_key": "abcdefgh"}', "http://me:pw4567@h/")) == (
        "abcdefgh",
        "me:pw4567",
    )


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


HIDDEN_WHOLE = "s3cretValue9"


@pytest.mark.parametrize(
    "form",
    [
        "vllm serve m --api-key s3cretValue9 --port 1",
        "vllm serve m --api-key one s3cretValue9 --port 1",
        "['serve', '--api-key', 'one', 's3cretValue9', '--port', '1']",
        '["--api-key", "s3cretValue9"]',
        "--api-key A s3cretValue9",
        "--api-key=a s3cretValue9 --port 1",
        "curl -u me:s3cretValue9 http://host/",
        "GET http://host/x?session=s3cretValue9",
        "GET http://host/x?token=s3cretValue9&n=1",
        "GET http://host/x?n=1&sig=s3cretValue9",
        "GET http://host/x?X-Amz-Signature=s3cretValue9&X-Amz-Expires=60",
        "GET http://host/x?key=s3cretValue9",
        "http://me:s3cretValue9@host/",
        "http://me:p@s3cretValue9@host/",
        "redis://:s3cretValue9@host/0",
        '{"user": "u", "pwd": "s3cretValue9"}',
        '{"password": "a\\"s3cretValue9"}',
        '{"env": ["A=b", "HF_TOKEN=s3cretValue9"]}',
        '{\\"api_key\\": \\"s3cretValue9\\"}',
        'os.environ["HF_TOKEN"] = "s3cretValue9"',
        "access_token: s3cretValue9",
        "clientSecret = s3cretValue9",
        "FOO_TOKEN=s3cretValue9",
        "DB_PASSWORD=pa,s3cretValue9",
        "api_key=SecretStr('s3cretValue9')",
        "Authorization: s3cretValue9",
        "Authorization: Basic s3cretValue9",
        "'Authorization': 'Bearer s3cretValue9'",
        'Proxy-Authorization: Digest username="x", response="s3cretValue9"',
        "x-api-key: s3cretValue9",
        "Cookie: a=b; session=s3cretValue9",
        "Set-Cookie: sid=s3cretValue9; Path=/",
        "{'Cookie': 'a=b; session=s3cretValue9'}",
        "cookies={'session': 's3cretValue9'}",
    ],
)
def test_a_secret_is_hidden_in_whatever_form_it_is_written(form: str) -> None:
    for shown in (conceal(form), " ".join(redact([form]))):
        assert HIDDEN_WHOLE not in shown
        assert HIDDEN in shown


@pytest.mark.parametrize(
    "secret",
    [
        "hf_AbCdEfGhIjKlMnOp",
        "sk-proj-abcDEF123456",
        "ghp_abcdefABCDEF1234567890",
        "AKIA" + "Q7" * 8,
    ],
)
def test_a_key_is_hidden_by_what_its_issuer_begins_it_with(secret: str) -> None:
    assert conceal(f"signed in with {secret} today") == f"signed in with {HIDDEN} today"


@pytest.mark.parametrize(
    "line",
    [
        "Prefill batch. #new-seq: 1, #new-token: 512, #cached-token: 0, token usage: 0.93",
        "Decode batch. #token: 3400, gen throughput (token/s): 79.96, #queue-req: 0",
        "#full token: 123, full token usage: 0.01, mamba num: 3, #swa token: 88",
        "token=512",
        "tokens: 12",
        "max_total_num_tokens=123, token throughput: 1,024",
        "ServerArgs(api_key=None, hf_token=None, use_auth_token=False)",
        "bos_token='<s>', eos_token=\"</s>\", image_token='<image>', pad_token=None",
        "use --api-key to protect the server",
        "Missing key: lm_head.weight; unexpected_keys=['a.b']; prefix cache key: 7",
        "Basic usage; the bearer token is missing",
        "PWD=/srv/u/models",
        "pad token: [PAD], stop token: [1, 2, 3], table_key: 3",
        "def load(token: str, key: str)",
        "hf_overrides={} hf_transfer=1 disk-cache12345678",
        "http://127.0.0.1:8000/v1/models",
    ],
)
def test_counts_and_prose_are_shown(line: str) -> None:
    assert conceal(line) == line


def test_a_number_behind_a_secrets_flag_is_a_secret() -> None:
    assert redact(["--api-key", "12345", "--hf-token=678"]) == (
        "--api-key",
        HIDDEN,
        f"--hf-token={HIDDEN}",
    )


@pytest.mark.parametrize("line", [
    "/etc/passwd:1: this is not JSON",
    "/etc/passwd: this is not JSON",
    "cannot read ~/keys/secret: no such file",
    "open('/run/secrets/hf_token: broken')",
])  # fmt: skip
def test_a_path_is_no_name_of_a_secret(line: str) -> None:
    assert conceal(line) == line


@pytest.mark.parametrize("line", [
    "/run/secrets/db_password:hunter22", "user/password: hunter22", "/app password: hunter22",
    "https://host/api/password: hunter22",
])  # fmt: skip
def test_a_secret_behind_a_slash_stays_hidden(line: str) -> None:
    assert "hunter22" not in conceal(line)
