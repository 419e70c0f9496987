"""Which names mean secrets: flags, variables, JSON keys, headers and query parameters.

In a log ``token`` has two meanings: a unit of text, and an access key. The word before it and the
value after it show which one is meant.
"""

from __future__ import annotations

import re
from functools import lru_cache

# A name that ends in one of these is a secret, with any prefix.
_ALWAYS = frozenset(
    {"password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"}
    | {"apikey", "accesskey", "authorization", "cookie", "cookies", "jwt", "passcode", "sessionid"}
)
_KEY = frozenset({"key", "keys"})
_TOKEN = frozenset({"token", "tokens"})
_SHORT = frozenset({"pwd", "pass", "pw"})
_SIGNATURE = frozenset({"sig", "signature"})
# Before ``token``: an access key, even if the value is a number.
_OF_DOORS = frozenset(
    {"api", "hf", "access", "auth", "authorization", "bearer", "refresh", "session", "secret", "id"}
    | {"jwt", "csrf", "xsrf", "huggingface", "hub", "github", "gitlab", "gh", "wandb", "oauth"}
    | {"client", "security", "personal", "private", "admin", "user", "aws", "sas", "slack", "bot"}
    | {"login", "identity", "deploy", "registry", "npm", "pypi", "ci", "job", "service", "account"}
    | {"openai", "anthropic", "azure", "modelscope", "ms", "vault", "hmac", "csrfmiddleware"}
)
# Before ``token``: a unit of text, or a number of them.
_OF_TEXT = frozenset(
    {"bos", "eos", "pad", "image", "stop", "unk", "mask", "sep", "cls", "new", "cached", "prompt"}
    | {"output", "input", "max", "min", "num", "total", "per", "next", "last", "first", "special"}
    | {"audio", "video", "extra", "decode", "prefill", "draft", "think", "thinking", "tool", "end"}
    | {"start", "begin", "batched", "full", "swa", "mamba", "running", "generated", "generation"}
    | {"accepted", "bonus", "sampled", "padding", "vision", "im", "eot", "eom", "hit", "usage"}
)
# Before ``key``: a key of a table, of a cache or of a model's weights.
_OF_TABLES = frozenset(
    {"missing", "unexpected", "unknown", "cache", "block", "sort", "group", "primary", "foreign"}
    | {"partition", "dict", "config", "hash", "routing", "public", "lora", "num", "max", "min"}
    | {"prefix", "kv", "state", "weight", "param", "parameter", "query", "dataset", "text", "mm"}
    | {"invalid", "duplicate", "extra", "json", "column", "attention"}
)
_PLAIN = frozenset(
    {"str", "int", "bytes", "any", "bool"}
    | {"", "none", "null", "nil", "true", "false", "yes", "no", "on", "off", "enabled", "disabled"}
    | {
        "required",
        "optional",
        "missing",
        "invalid",
        "expired",
        "empty",
        "unset",
        "not",
        "undefined",
    }
)
_NUMBER = re.compile(r"[+-]?[0-9][0-9_,]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?%?\.?")
_SPECIAL = re.compile(r"<.*>|\|.*\||\[?(?:PAD|UNK|CLS|SEP|MASK)\]?")  # of a model
_NUMBERS = re.compile(rf"{_NUMBER.pattern}(?:,\s*{_NUMBER.pattern})*")
_PATH = re.compile(r"[/~.]")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_RANDOM = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9+/=_%.~-]{16,}|[0-9a-fA-F]{16,}")
# Written by the shell: folders.
FOLDERS = frozenset({"PWD", "OLDPWD"})


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in any style.

    >>> words_of("--hf-token"), words_of("apiKey"), words_of("X-Amz-Signature")
    (('hf', 'token'), ('api', 'key'), ('x', 'amz', 'signature'))
    """
    plain = _CAMEL.sub("-", name) if not name.isupper() else name
    return tuple(word.lower() for word in re.split(r"[^A-Za-z0-9]+", plain) if word)


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether the name of a flag or a variable means a secret.

    >>> [is_secret_name(n) for n in ("--api-key", "HF_TOKEN", "--max-num-batched-tokens")]
    [True, True, False]
    """
    words = words_of(name)
    if not words or name in FOLDERS:
        return False
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last in _ALWAYS or last.endswith("apikey"):
        return True
    if last in _KEY:
        return before not in _OF_TABLES and (bool(before) or last == "key")
    if last == "token":
        return before not in _OF_TEXT
    if last == "tokens":
        return before in _OF_DOORS
    if last == "pass":
        return bool(before)
    return last in _SHORT or last in _SIGNATURE or last == "auth"


def names_secret(name: str, value: str, *, assigned: bool, quoted: bool = False) -> bool:
    """Whether a value is a secret, given its name, both found in a text.

    value: without quotes. assigned: by ``=``; in prose a colon may follow any word. quoted: the
    name is in quotes, as in JSON.

    >>> names_secret("#new-token", "512", assigned=False)
    False
    >>> names_secret("token", "s3same", assigned=False)
    True
    """
    if not is_secret_name(name):
        # PWD=/root is a shell's working directory; PWD=hunter2 is a password.
        return name in FOLDERS and bool(value) and not _PATH.match(value)
    words = words_of(name)
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if value.strip("*").lower() in _PLAIN:
        return False
    if last in _TOKEN:
        door = before in _OF_DOORS or (bool(before) and name.isupper())
        return door or not (_NUMBERS.fullmatch(value) or _SPECIAL.fullmatch(value))
    if last in _KEY and before not in _OF_DOORS and re.fullmatch("[0-9]{1,5}", value):
        return False
    if last in _KEY and not before and not assigned:
        return bool(_RANDOM.fullmatch(value))
    if last in _SIGNATURE:
        return (last == "sig" and (assigned or quoted)) or bool(_RANDOM.fullmatch(value))
    if last in _SHORT:
        door = name.isupper() or assigned or quoted or last == "pwd"
        return door and not (_PATH.match(value) or (last == "pass" and _NUMBER.fullmatch(value)))
    return True
