"""Secrets in argument vectors: found by the flag's name, so that none is shown, kept or logged."""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[hidden]"

_LAST_WORDS = frozenset(
    {"key", "keys", "token", "password", "passwd", "passphrase", "secret", "credentials"}
)
# What ends in such a word and is none: file names, and special tokens of a model.
_HARMLESS = frozenset({"bos-token", "eos-token", "pad-token", "image-token", "stop-token"})
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+\S+")
# Most lines of a log name none of these, and a log may have a million.
_SECRET_WORD = re.compile(r"(?i)key|token|passw|passphrase|secret|credential|bearer|basic ")
_FLAG_VALUE = re.compile(r"((--[A-Za-z][\w-]*)[ =])(\S+)")
_NAMED_VALUE = re.compile(
    r"""((["']?[A-Za-z][\w-]*["']?)\s?[=:]\s?)(\[[^\]]*\]|"[^"]*"|'[^']*'|[^\s,;(){}\[\]]+)"""
)
_JSON_SECRET = re.compile(
    r"""(?i)(["'][\w-]*(?:api_?key|token|password|secret)["']\s*:\s*)(?:"[^"]*"|'[^']*')"""
)


def is_secret_name(name: str) -> bool:
    """Whether a flag's or variable's name says that its value is a secret.

    >>> [is_secret_name(n) for n in ("--api-key", "HF_TOKEN", "--max-num-batched-tokens")]
    [True, True, False]
    """
    plain = name.lstrip("-").lower().replace("_", "-")
    last = plain.rpartition("-")[2]
    return plain not in _HARMLESS and (last in _LAST_WORDS or plain.endswith("apikey"))


def redact(argv: Iterable[str]) -> tuple[str, ...]:
    """The same arguments with every secret value replaced by ``[hidden]``."""
    shown: list[str] = []
    hiding = False
    for arg in argv:
        name, equals, value = arg.partition("=")
        if arg.startswith("-"):
            # A flag may take several values (vLLM's --api-key does): hide up to the next flag.
            hiding = is_secret_name(name) and not equals
        if hiding and not arg.startswith("-"):
            shown.append(HIDDEN)
        elif equals and value and is_secret_name(name):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(_inside(arg))
    return tuple(shown)


def secrets_in(argv: Iterable[str]) -> tuple[str, ...]:
    """The values that ``redact`` would hide whole: what to look for in text that quotes them."""
    given = tuple(argv)
    found = []
    for before, after in zip(given, redact(given), strict=True):
        if after.endswith(HIDDEN):
            found.append(before.removeprefix(after.removesuffix(HIDDEN)))
    # Shorter ones would hide ordinary words.
    return tuple(secret for secret in found if len(secret) >= 6)


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text with each of these values replaced."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def conceal(text: str) -> str:
    """A line of text without the values of what is named like a secret, as engines print them.

    >>> conceal("error: unrecognized arguments: --api-key abc123")
    'error: unrecognized arguments: --api-key [hidden]'
    >>> conceal("{'api_key': ['abc123'], 'max_num_batched_tokens': 8192}")
    "{'api_key': [hidden], 'max_num_batched_tokens': 8192}"
    """
    if not _SECRET_WORD.search(text):
        return text

    def hidden(found: re.Match[str]) -> str:
        secret = is_secret_name(found[2].strip("'\"")) and HIDDEN not in found[3]
        return f"{found[1]}{HIDDEN}" if secret else found[0]

    text = _NAMED_VALUE.sub(hidden, _FLAG_VALUE.sub(hidden, text))
    return _BEARER.sub(rf"\1 {HIDDEN}", text)


def _inside(arg: str) -> str:
    arg = _USERINFO.sub(HIDDEN, arg)
    arg = _BEARER.sub(rf"\1 {HIDDEN}", arg)
    return _JSON_SECRET.sub(rf'\1"{HIDDEN}"', arg)
