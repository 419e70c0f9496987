"""Values: small frozen records of facts, made once and never changed.

Most are ``msgspec.Struct``, which takes a thirtieth of a dataclass's time to be declared: dozens of
them are declared before the first paint. Those with a field that must not be shown by ``repr`` are
dataclasses.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, structs

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Value = TypeVar("_Value", bound="Struct | DataclassInstance")


def replace(value: _Value, /, **changes: Any) -> _Value:
    """The same value with other fields, whichever of the two kinds it is.

    TypeError for a field that it does not have.
    """
    if isinstance(value, Struct):
        return structs.replace(value, **changes)
    return dataclasses.replace(value, **changes)
