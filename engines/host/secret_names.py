"""Which names stand for secrets: of flags, variables, JSON keys, headers and query parameters.

A log says ``token`` of two things: of words of a text, which are counted, and of keys to a door.
The word before it and the value behind it tell which one is meant.
"""

from __future__ import annotations

import re
from functools import lru_cache

# A name that ends in one of these is a secret's, whatever stands before it.
_ALWAYS = frozenset(
    {"password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"}
    | {"apikey", "accesskey", "authorization", "cookie", "cookies", "jwt", "passcode", "sessionid"}
)
_KEY = frozenset({"key", "keys"})
_TOKEN = frozenset({"token", "tokens"})
_SHORT = frozenset({"pwd", "pass", "pw"})
_SIGNATURE = frozenset({"sig", "signature"})
# Before ``token``: the key to a door, even when it is a number.
_OF_DOORS = frozenset(
    {"api", "hf", "access", "auth", "authorization", "bearer", "refresh", "session", "secret", "id"}
    | {"jwt", "csrf", "xsrf", "huggingface", "hub", "github", "gitlab", "gh", "wandb", "oauth"}
    | {"client", "security", "personal", "private", "admin", "user", "aws", "sas", "slack", "bot"}
    | {"login", "identity", "deploy", "registry", "npm", "pypi", "ci", "job", "service", "account"}
    | {"openai", "anthropic", "azure", "modelscope", "ms", "vault", "hmac", "csrfmiddleware"}
)
# Before ``token``: a word of a text, or how many.
_OF_TEXT = frozenset(
    {"bos", "eos", "pad", "image", "stop", "unk", "mask", "sep", "cls", "new", "cached", "prompt"}
    | {"output", "input", "max", "min", "num", "total", "per", "next", "last", "first", "special"}
    | {"audio", "video", "extra", "decode", "prefill", "draft", "think", "thinking", "tool", "end"}
    | {"start", "begin", "batched", "full", "swa", "mamba", "running", "generated", "generation"}
    | {"accepted", "bonus", "sampled", "padding", "vision", "im", "eot", "eom", "hit", "usage"}
)
# Before ``key``: of a table, a cache or a model's weights.
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
    """The words of a name, however they are joined.

    >>> words_of("--hf-token"), words_of("apiKey"), words_of("X-Amz-Signature")
    (('hf', 'token'), ('api', 'key'), ('x', 'amz', 'signature'))
    """
    plain = _CAMEL.sub("-", name) if not name.isupper() else name
    return tuple(word.lower() for word in re.split(r"[^A-Za-z0-9]+", plain) if word)


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a flag's or variable's name says that its value is a secret.

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
    """Whether this value of this name is a secret, where both stand in a text.

    value: without its quotes. assigned: by ``=``; in prose a colon may follow any word. quoted: the
    name is in quotes, as in JSON.

    >>> names_secret("#new-token", "512", assigned=False)
    False
    >>> names_secret("token", "s3same", assigned=False)
    True
    """
    if not is_secret_name(name):
        # PWD=/root is where a shell is; PWD=hunter2 is not.
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
