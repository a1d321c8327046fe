"""Identities and results as frozen dataclasses that are JSON objects: written as they are, read back with checks."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from ..errors import UsageError

OPTIONAL = {"beside": ""}
"""Metadata of a field that has no key in JSON where it is None; `beside` names the field to look at instead."""
_WAY_OUT = "the file is damaged, or of another version: restore it, or make the run again."
_NAMES = {
    Mapping: "an object",
    list: "a list",
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}


class Record:
    """The base of frozen, keyword-only dataclasses whose fields are the keys of a JSON object, in their order."""

    __dataclass_fields__: ClassVar[dict[str, Any]]  # every subclass is a dataclass

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: dicts, lists, text, numbers, booleans and None."""
        told = [f for f in fields(self) if "beside" not in f.metadata or self._has(f.metadata["beside"] or f.name)]
        return {f.name: _plain(getattr(self, f.name)) for f in told}

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None

    @classmethod
    def from_dict(cls, values: object, where: str) -> Self:
        """Read what `to_dict` gave; keys that no field has are passed over.

        Raises
        ------
        UsageError
            If a field is missing or of another type; names `where` (the file) and the field.
        """
        return _read(values, cls, where)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _read(value: Any, kind: Any, where: str) -> Any:
    """Check a JSON value against a type (X | None, tuple[X, ...], Mapping[str, X], a record) and read it as that."""
    inner = get_args(kind)
    origin = get_origin(kind) or kind
    if origin is UnionType:
        return None if value is None else _read(value, next(x for x in inner if x is not NoneType), where)
    record = isinstance(kind, type) and issubclass(kind, Record)
    json = Mapping if record else list if origin is tuple else origin
    right = kind is Any or isinstance(value, int | float if json is float else json)
    if not right or (isinstance(value, bool) and json in (int, float)):
        raise UsageError(f"{where} must be {_NAMES[json]}, and is {str(value)[:40]!r}; {_WAY_OUT}")
    if record:
        if missing := [f.name for f in fields(kind) if f.name not in value and f.default is MISSING]:
            raise UsageError(f"{where} has no {missing[0]!r}; {_WAY_OUT}")
        return kind(**{k: _read(value[k], t, f"{where}.{k}") for k, t in _types(kind).items() if k in value})
    if origin is tuple:
        return tuple(_read(item, inner[0], f"{where}[{n}]") for n, item in enumerate(value))
    return {k: _read(v, inner[1], f"{where}.{k}") for k, v in value.items()} if origin is Mapping else value


_types = cache(get_type_hints)
