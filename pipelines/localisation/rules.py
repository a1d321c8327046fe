"""Rules by name with settings of their own, from the texts of `--rule` and `--set`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from ...errors import UnknownNameError, nearest_key_error
from ...heads.registry import parse_value


def read_rule(rules: Mapping[str, type[Any]], name: str, texts: Mapping[str, str]) -> Any:
    """Read `KEY=VALUE` texts into the settings of a rule.

    Parameters
    ----------
    rules : the dataclass of each rule's settings, by the rule's name
    texts : by field

    Raises
    ------
    UnknownNameError
        For a rule or a setting that there is not; names the nearest known one.
    UsageError
        For a value that its field cannot take.
    """
    if name not in rules:
        raise UnknownNameError("rule", name, rules)
    kind = rules[name]
    nearest_key_error(f"setting of --rule {name}", texts, [f.name for f in fields(kind)])
    hints = get_type_hints(kind)
    return kind(**{key: parse_value(key, text, hints[key]) for key, text in texts.items()})
