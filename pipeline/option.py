"""What an option is: its metadata, its range or choices, and its value from a run record. Knows no option by name."""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import field, fields, is_dataclass
from typing import Any, get_args

from pipeline.errors import UserError

log = logging.getLogger(__name__)


def option(
    default: Any,
    meaning: str,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    pattern: str = "",
) -> Any:
    """A dataclass field that knows its meaning, unit, and inclusive range or choices.

    `pattern` is a regular expression for values beside `choices`, which show it to people in a readable form.
    """
    metadata = dict(meaning=meaning, unit=unit, low=low, high=high, choices=choices, pattern=pattern)
    return field(default=default, metadata=metadata)


def group(cls: type) -> Any:
    return field(default_factory=cls, metadata=dict(group=True))


def options(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option below a config class: its dotted name and its dataclass field."""
    for f in fields(cls):
        if f.metadata.get("group"):
            yield from options(f.default_factory, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f


def validate(config: Any, prefix: str = "") -> None:
    """Hold every value against its range or choices; UserError names the first that is out of it."""
    for f in fields(config):
        value, name = getattr(config, f.name), prefix + f.name
        if is_dataclass(value):
            validate(value, f"{name}.")
        elif value is not None and (wanted := _outside(value, f.metadata)):
            raise UserError(f"{name}={value} is out of range: {wanted} wanted")


def _outside(value: Any, meta: Any) -> str:
    """What was wanted, if `value` is not within it; else an empty string."""
    if choices := meta["choices"]:
        fits = re.fullmatch(meta["pattern"], value) if meta["pattern"] else value in choices
        return "" if fits else "one of " + ", ".join(choices)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    low, high = meta["low"], meta["high"]
    finite = isinstance(value, int) or math.isfinite(value)  # an integer may be too large for a float
    if finite and (low is None or value >= low) and (high is None or value <= high):
        return ""
    limits = ", ".join(f"{limit} or {word}" for limit, word in ((low, "more"), (high, "less")) if limit is not None)
    return f"{limits} {meta['unit']}".strip()


def build_from_dict(cls: type, values: dict[str, Any], groups: dict[str, type], prefix: str = "") -> Any:
    """A config class from JSON values of any version; `groups` replaces the class of a group by its name.

    What the values lack has its default; an option that does not exist today is logged. `UserError` for a wrong type.
    """
    known = {f.name: f for f in fields(cls)}
    for name in values.keys() - known.keys():
        log.info("the option %s%s=%s of a run record does not exist today", prefix, name, values[name])
    given = {}
    for name in values.keys() & known.keys():
        value, f = values[name], known[name]
        if f.metadata.get("group"):
            value = build_from_dict(groups.get(name, f.default_factory), value, {}, f"{prefix}{name}.")
        elif not isinstance(value, _types_of(f)) or isinstance(value, bool) and bool not in _types_of(f):
            raise UserError(f"{prefix}{name}={value!r} is not of type {f.type}")
        given[name] = value
    return cls(**given)


def _types_of(f: Any) -> tuple[type, ...]:
    """What a JSON value of an option may be."""
    kinds = get_args(f.type) or (f.type,)
    return (*kinds, int) if float in kinds else tuple(kinds)
