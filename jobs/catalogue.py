"""Every job's options and named choices, and what --help says of them. Knows nothing of how they are given."""

from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import get_args

import conf
from pipeline.config import (  # fmt: skip
    ENGINE_CONFIGS,
    AuditConfig,
    BenchmarkConfig,
    GenerateConfig,
    ModelConfig,
    VoicesConfig,
)
from pipeline.option import options

CONF = Path(conf.__file__).parent
JOBS = dict(generate=GenerateConfig, voices=VoicesConfig, audit=AuditConfig, benchmark=BenchmarkConfig)
NAMED = ("engine", "voice", "sampling", "precision")  # groups of named choices
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def groups_of(schema: type) -> list[str]:
    """The groups of named choices that a job has."""
    return [f.name for f in fields(schema) if f.name in NAMED and issubclass(schema, ModelConfig)]


def choices(group: str) -> list[str]:
    """The named choices of a folder of `conf/`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def all_options(schema: type) -> Iterator[tuple[str, Field]]:
    """Every option of a job and of each engine: dotted name and dataclass field."""
    for name, field in options(schema):
        if name != "engine.name":
            yield name, field
    for engine in schema.engines if issubclass(schema, ModelConfig) else ():
        own = options(ENGINE_CONFIGS[engine], "engine.")
        yield from ((name, field) for name, field in own if name != "engine.name")


def engines_with(option: str) -> list[str]:
    """The engines that have an option such as `engine.pitch`."""
    return [engine for engine, config in ENGINE_CONFIGS.items() if option in dict(options(config, "engine."))]


def usage(name: str, schema: type) -> str:
    """The --help text: the named choices, then every option with its default, meaning, unit and range."""
    lines = [f"python -m jobs.{name} OPTION=VALUE ...", ""]
    if groups := groups_of(schema):
        lines += ["named choices:", *(f"  {group}=" + "|".join(choices(group)) for group in groups), ""]
    lines += ["options:"] + [
        f"  {option}={default(f)}".ljust(36) + f" {meaning(f)}" for option, f in all_options(schema)
    ]
    lines += ["", "also: --cfg job, --multirun, --config-dir DIR (your own voice/NAME.yaml and the like), --version"]
    return "\n".join(lines).replace("$", "$$")  # Hydra reads it as a string.Template


def default(field: Field) -> str:
    return {None: "null", "???": ""}.get(field.default, str(field.default))


def meaning(field: Field) -> str:
    """What the option means, its unit and its range or choices."""
    return field.metadata["meaning"] + limits(field)


def limits(field: Field) -> str:
    """An option's unit and its range or choices, in brackets; empty where it has none."""
    low, high, names = (field.metadata[key] for key in ("low", "high", "choices"))
    span = "|".join(names) or ("" if low is None else f"{low} or more" if high is None else f"{low} to {high}")
    notes = ", ".join(note for note in (field.metadata["unit"], span) if note)
    return f" ({notes})" if notes else ""


def kind_of(field: Field) -> str:
    """What a value of the option is, in words."""
    return KINDS[(get_args(field.type) or (field.type,))[0]]
