"""A typed configuration as the command line that gives it. Knows nothing of what a job does."""

import re
from collections.abc import Iterator
from functools import reduce
from typing import Any

from pipeline.option import options


def to_arguments(config: Any) -> list[str]:
    """`name=value` for each option that is not its default. The engine is the one that the job has by default."""
    fields = dict(options(type(config))) | dict(options(type(config.engine), "engine."))
    return list(_changed(config, fields))


def _changed(config: Any, fields: dict[str, Any]) -> Iterator[str]:
    for name, field in fields.items():
        value = reduce(getattr, name.split("."), config)
        if name != "engine.name" and value != field.default:
            yield f"{name}={_write(value)}"


def _write(value: Any) -> str:
    """As Hydra's grammar has it: backslashes count before quotes only, and `${` would be an interpolation."""
    if not isinstance(value, str):
        return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    quoted = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return "'" + quoted.replace("${", "\\${") + "'"
