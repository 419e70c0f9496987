"""Values: small frozen records of facts, made once and never changed.

All are ``msgspec.Struct``, which takes a thirtieth of a dataclass's time to be declared: dozens of
them are declared before the first paint. One with a field that must not be shown is ``Secretive``.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from msgspec import Struct, structs

_Value = TypeVar("_Value", bound=Struct)


def replace(value: _Value, /, **changes: Any) -> _Value:
    """The same value with other fields. TypeError for a field that it does not have."""
    return structs.replace(value, **changes)


class Secretive(Struct, frozen=True):
    """A value whose ``repr`` leaves the fields of ``secret`` out, so a traceback shows none."""

    secret: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({fields})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = (name for name in self.__struct_fields__ if name not in self.secret)
        return [(name, getattr(self, name)) for name in shown]
