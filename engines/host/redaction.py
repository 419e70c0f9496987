"""Finds secrets in arguments and text by name and form, and hides them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmtop.engines.host.secret_names import FOLDERS, is_secret_name, names_secret

__all__ = ["HIDDEN", "conceal", "hide", "is_secret_name", "redact", "secrets_in"]

HIDDEN = "[hidden]"
_SHORTEST = 6  # characters of a secret to search for: shorter ones would hide ordinary words

# Most lines of a log contain none of these, and a log may have a million lines.
_WORTH_A_LOOK = re.compile(
    r"(?i)key|token|pass|pwd|secret|credential|bearer|basic |auth|cookie|\bsig|signature|jwt"
    r"|sessionid|://[^/\s]*@|[?&]s|-u |--user|hf_|sk-|\b(?:gh[opsur]_|github_pat_|glpat-|xox[a-z]-"
    r"|akia|asia|aiza|eyj|nvapi-|gsk_|r8_|npm_|pypi-)"
)
# RFC 3986, 3.2.1: everything up to the last @ before the path.
_USERINFO = re.compile(r"(?<=://)[^/\s?#\"'<>]+(?=@)")
_QUERY = re.compile(r"([?&;]([A-Za-z][\w.-]*)=)([^&;#\s\"'<>]+)")
_QUERY_ALONE = frozenset({"session", "sid", "sas", "code"})
_USER = re.compile(r"((?<!\S)(?:-u|--user)[ =][^\s:]+:)\S+")  # as curl takes them
# Headers whose whole value is a secret: RFC 9110, 11.6.2, and RFC 6265, 4.
_AUTHORIZATION = re.compile(
    r"(?i)(\b(?:proxy-)?authorization\\?[\"']?\s{0,2}[:=]\s{0,2}(?:b(?=[\"']))?\\?[\"']?"
    r"(?:(?:bearer|basic|token|digest|negotiate|apikey)\s+)?+)"
    r"(?:(?<=digest )[^\n]+|[^\s\"',\\]+)"
)
_COOKIE = re.compile(
    r"(?i)(\b(?:set-)?cookie\\?[\"']?\s{0,2}:\s{0,2})(?:(b?\\?[\"'])([^\"']+)|([^\s\"'{\[(]+[^\n]*))"
)
# In prose the next word is not a secret: "bearer token is missing", "basic usage".
_BEARER = re.compile(
    r"(?i)\b(bearer)(\s+)(?!(?:tokens?|auth\w*|schemes?|headers?|credentials?|is|was|not|or|and"
    r"|required|missing|realm)\b|\[hidden\])[\w.~+/=:-]{3,}"
)
_BASIC = re.compile(r"\b([Bb]asic)(\s+)(?=[A-Za-z0-9+/]*[A-Z0-9=])[A-Za-z0-9+/]{8,}={0,2}")
# Prefixes of keys by issuer. The rest has a digit or a capital, or is too long for a word.
_REST = r"(?:(?=[\w-]*[0-9A-Z])[\w-]{8,}|[\w-]{20,})"
_KNOWN = re.compile(
    r"(?<![A-Za-z0-9_])(?:hf_(?:(?=[A-Za-z0-9]*[0-9A-Z])[A-Za-z0-9]{8,}|[A-Za-z0-9]{20,})(?!\w)"
    rf"|sk-{_REST}|gh[opsur]_{_REST}|github_pat_{_REST}|glpat-{_REST}|xox[abeoprs]-{_REST}"
    rf"|nvapi-{_REST}|gsk_{_REST}|r8_{_REST}|npm_{_REST}|pypi-[\w-]{{20,}}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{12,}|AIza[\w-]{20,}|eyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?)"
)
_QUOTED = r"""\\"(?:[^"\\]|\\[^"])*\\"|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
# As in a shell: after a flag all words up to the next flag, since a flag may take several values.
_FLAG = re.compile(r"(?<![\w-])(--?[A-Za-z][\w-]*)(=|\s+)(?=\S)")
_FLAG_WORD = re.compile(rf"(?:{_QUOTED}|[^\s,;|&()\[\]{{}}<>`]+)")
_PROSE = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "by", "can", "cannot", "for", "from", "has", "if"}
    | {"in", "instead", "is", "may", "must", "needs", "not", "of", "on", "option", "or", "requires"}
    | {"should", "so", "that", "the", "then", "this", "to", "was", "which", "will", "with", "flag"}
    | {"argument", "arguments", "when", "where", "without", "given", "set", "value", "expects"}
    | {"==="}  # the end of the line that llmtop writes before a start
)
# As Python and JSON print an argument vector: '--api-key', 'A', 'B', '--port'
_LISTED_FLAG = re.compile(
    r"""((["'])(--?[A-Za-z][\w-]*)\2)((?:\s*,\s*(?:"(?!-)[^"]*"|'(?!-)[^']*'))+)"""
)
_LISTED_VALUE = re.compile(r"""(["'])[^"']*\1""")
_HEAD = re.compile(
    r"""(?<![\w-])(?<!\w\.)(?P<quote>\\?["'])?(?P<name>\#?[A-Za-z_][\w.-]*)\\?["']?\]?"""
    r"""\s{0,2}(?P<sign>=>?|:=?)(?!//)\s{0,2}"""
)
_VALUE = re.compile(
    rf"""\[[^\]]*\]|\([^()]*\)|\{{[^{{}}]*\}}|b?(?:{_QUOTED})|["'][^"']*$"""
    r"""|[^\s,;(){}\[\]"']+(?:\([^()]*\)|(?:[,;](?![\w.#-]+["']?[=:])[^\s,;(){}\[\]"']+)*)"""
)
# A message about a file: a path, then a space, or a line number and a colon.
_FOLDERS = re.compile(
    r"(?:^|[\s'\"(\[,=])(?:(?:~|\.{1,2})?/[\w.@+-]{1,255}|~|\.{1,2})(?:/[\w.@+-]{1,255})*/$"
)
_OF_FILE = re.compile(r":(?: (?=\S)|\d{1,9}:)")
_PATH_CHARS = 400  # of the text before a name
_EDGE = re.compile(r"""b?(\\?["'])""")
_HEADERS = ("authorization", "cookie")  # hidden with their schemes and attributes before


def redact(argv: Iterable[str]) -> tuple[str, ...]:
    """The same arguments with every secret value replaced by ``[hidden]``."""
    shown: list[str] = []
    hiding = False
    for arg in argv:
        name, equals, value = arg.partition("=")
        if arg.startswith("-"):
            # A flag may take several values (vLLM's --api-key): hide up to the next flag.
            hiding = is_secret_name(name) and " " not in name
        if hiding and not arg.startswith("-"):
            shown.append(HIDDEN)
        elif equals and value and re.fullmatch(r"-{0,2}[\w.-]+", name) and is_secret_name(name):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(conceal(arg))
    return tuple(shown)


def secrets_in(argv: Iterable[str]) -> tuple[str, ...]:
    """The values that ``redact`` hides, to search for them in text that quotes them."""
    given = tuple(argv)
    found = []
    for before, after in zip(given, redact(given), strict=True):
        head, hidden, tail = after.partition(HIDDEN)
        if hidden and HIDDEN not in tail:
            found.append(before[len(head) : len(before) - len(tail)])
    return tuple(secret for secret in found if len(secret) >= _SHORTEST)


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text with each of these values replaced."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def conceal(text: str) -> str:
    """A line of text with secret values hidden, found by name or form.

    >>> conceal("error: unrecognized arguments: --api-key abc123")
    'error: unrecognized arguments: --api-key [hidden]'
    >>> conceal("{'api_key': ['abc123'], 'max_num_batched_tokens': 8192}")
    "{'api_key': [hidden], 'max_num_batched_tokens': 8192}"
    >>> conceal("Prefill batch, #new-token: 512, token usage: 0.93")
    'Prefill batch, #new-token: 512, token usage: 0.93'
    """
    if not _WORTH_A_LOOK.search(text):
        return text
    text = _USER.sub(rf"\1{HIDDEN}", _USERINFO.sub(HIDDEN, text))
    text = _AUTHORIZATION.sub(rf"\1{HIDDEN}", text)
    text = _COOKIE.sub(_cookie, text)
    text = _LISTED_FLAG.sub(_listed, text)
    text = _QUERY.sub(_parameter, _flags(text))
    text = _named(text)
    text = _BEARER.sub(rf"\1\2{HIDDEN}", text)
    text = _BASIC.sub(rf"\1\2{HIDDEN}", text)
    return _KNOWN.sub(HIDDEN, text)


def _cookie(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2] or ''}{HIDDEN}"


def _parameter(found: re.Match[str]) -> str:
    # In a URL query a number is a secret too: it is not a log's counter.
    secret = is_secret_name(found[2]) or found[2].lower() in _QUERY_ALONE
    return f"{found[1]}{HIDDEN}" if secret else found[0]


def _listed(found: re.Match[str]) -> str:
    if not is_secret_name(found[3]):
        return found[0]
    return found[1] + _LISTED_VALUE.sub(rf"\1{HIDDEN}\1", found[4])


def _flags(text: str) -> str:
    """Hide the words after a secret's flag, up to the next flag or the end of the command line."""
    out, at = [], 0
    while (found := _FLAG.search(text, at)) is not None:
        out.append(text[at : found.end()])
        at = found.end()
        if not is_secret_name(found[1]):
            continue
        while (word := _FLAG_WORD.match(text, at)) is not None:
            prose = found[2] != "=" and word[0].strip("'\".:") in _PROSE
            if word[0].startswith("-") or prose:
                break
            out.append(word[0] if HIDDEN in word[0] else HIDDEN)
            at = word.end()
            gap = re.compile(r"[ \t]+").match(text, at)
            if gap is None:
                break
            out.append(gap[0])
            at = gap.end()
    return "".join((*out, text[at:]))


def _named(text: str) -> str:
    """Hide the values of secret names, also inside other values."""
    out, at = [], 0
    for head in _HEAD.finditer(text):
        name, sign = head["name"], head["sign"]
        if head.start() < at or not (is_secret_name(name) or name in FOLDERS):
            continue
        if sign == ":" and name.lower().endswith(_HEADERS):
            continue
        if sign == ":" and _names_file(text, head):
            continue
        value = _VALUE.match(text, head.end())
        if value is None or HIDDEN in value[0]:
            continue
        quoted = head["quote"] is not None
        if names_secret(name, _bare(value[0]), assigned=sign[0] == "=", quoted=quoted):
            out += [text[at : value.start()], _covered(value[0])]
            at = value.end()
    return "".join((*out, text[at:]))


def _names_file(text: str, head: re.Match[str]) -> bool:
    """Whether a name is the last part of a path in a message: then it is not a key."""
    begin, end = head.start("name"), head.start("sign")
    if head["quote"] is not None or text[begin - 1 : begin] != "/":
        return False
    before = text[max(0, begin - _PATH_CHARS) : begin]
    return _OF_FILE.match(text, end) is not None and _FOLDERS.search(before) is not None


def _bare(value: str) -> str:
    """A value without its quotes or brackets."""
    edge = _EDGE.match(value)
    if edge is not None:
        return value[edge.end() :].removesuffix(edge[1])
    return value[1:-1].strip() if value.startswith(("[", "(", "{")) else value


def _covered(value: str) -> str:
    """The replacement of a secret. Quotes stay, so that JSON stays valid."""
    edge = _EDGE.match(value)
    if edge is None:
        return HIDDEN
    return f"{edge[0]}{HIDDEN}{edge[1] if value.endswith(edge[1]) else ''}"
