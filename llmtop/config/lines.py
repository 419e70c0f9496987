"""The line of each key in a TOML text: error messages need it, and tomllib returns only values."""

from __future__ import annotations

from collections.abc import Mapping

Key = tuple[str | int, ...]
"""The path of a value: names of tables and keys, and indices of array elements from 0."""

_BLANK = " \t\r"
_SPACE = _BLANK + "\n"
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def lines_of(text: str) -> Mapping[Key, int]:
    """The line, counted from 1, of every table, key and array element of a text.

    The text must be valid TOML: this finds no errors. A table with several headers has the line of
    the first one.
    """
    return _Scan(text).found


def line_of(lines: Mapping[Key, int], key: Key) -> int:
    """The line of a key, or of the nearest enclosing table that has a line; otherwise 1."""
    while key:
        if key in lines:
            return lines[key]
        key = key[:-1]
    return 1


class _Scan:
    """One pass over a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.offset = 0  # of the next character
        self.line = 1
        self.found: dict[Key, int] = {}
        self._counts: dict[Key, int] = {}  # elements of each array of tables so far
        table: Key = ()
        while self._skip():
            if self.text.startswith("[[", self.offset):
                table = self._header(2)
                count = self._counts.get(table, 0)
                self._counts[table] = count + 1
                self._record(table)
                table = (*table, count)
                self._record(table)
            elif self._peek() == "[":
                table = self._header(1)
                self._record(table)
            else:
                self._pair(table)

    def _peek(self) -> str:
        return self.text[self.offset : self.offset + 1]

    def _advance(self, count: int = 1) -> None:
        self.line += self.text.count("\n", self.offset, self.offset + count)
        self.offset += count

    def _skip(self, among: str = _SPACE) -> bool:
        """Skip the characters ``among`` and comments. False at the end of the text."""
        while (char := self._peek()) and (char in among or char == "#"):
            if char == "#":
                end = self.text.find("\n", self.offset)
                self.offset = len(self.text) if end < 0 else end
            else:
                self._advance()
        return bool(self._peek())

    def _record(self, key: Key) -> None:
        for length in range(1, len(key) + 1):
            self.found.setdefault(key[:length], self.line)

    def _header(self, brackets: int) -> Key:
        self._advance(brackets)
        named = self._key(())
        self._advance(brackets)
        # In a header, the name of an array of tables means its last element.
        key: Key = ()
        for part in named:
            key = (*key, part)
            if len(key) < len(named) and key in self._counts:
                key = (*key, self._counts[key] - 1)
        return key

    def _key(self, table: Key) -> Key:
        parts: list[str | int] = []
        while True:
            self._skip(_BLANK)
            if self._peek() in ("'", '"'):
                parts.append(self._string())
            else:
                start = self.offset
                while self._peek() and self._peek() not in f"{_SPACE}.=]":
                    self.offset += 1
                parts.append(self.text[start : self.offset])
            self._skip(_BLANK)
            if self._peek() != ".":
                return (*table, *parts)
            self._advance()

    def _pair(self, table: Key) -> None:
        key = self._key(table)
        self._record(key)
        self._advance()  # the equals sign
        self._skip(_BLANK)
        self._value(key)

    def _value(self, key: Key) -> None:
        opening = self._peek()
        if opening in ("'", '"'):
            self._string()
        elif opening in ("[", "{"):
            self._advance()
            index = 0
            while self._skip(_SPACE + ",") and self._peek() not in "]}":
                if opening == "{":
                    self._pair(key)
                else:
                    self._record((*key, index))
                    self._value((*key, index))
                    index += 1
            self._advance()
        else:
            while self._peek() and self._peek() not in ",]}#\n":
                self.offset += 1

    def _string(self) -> str:
        """Skip a string of any of the four kinds. Returns its text, which is exact for keys."""
        quote = self._peek()
        delimiter = quote * 3 if self.text.startswith(quote * 3, self.offset) else quote
        self._advance(len(delimiter))
        content: list[str] = []
        while self._peek() and not self.text.startswith(delimiter, self.offset):
            char = self._peek()
            self._advance()
            if char == "\\" and quote == '"':
                char = self._escaped()
            content.append(char)
        self._advance(len(delimiter))
        while len(delimiter) == 3 and self._peek() == quote:  # the text may end with two quotes
            self._advance()
        return "".join(content)

    def _escaped(self) -> str:
        char = self._peek()
        self._advance()
        digits = {"u": 4, "U": 8, "x": 2}.get(char)
        if digits is None:
            return _ESCAPES.get(char, char)
        code = self.text[self.offset : self.offset + digits]
        self._advance(digits)
        return chr(int(code, 16))
