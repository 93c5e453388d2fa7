"""From `pipeline.config` to Hydra and back: schemas, the typed configuration, one-line errors, --help."""

import atexit
import difflib
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import Field, asdict, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import conf
from pipeline.config import (  # fmt: skip
    ENGINE_CONFIGS,
    AuditConfig,
    BenchmarkConfig,
    GenerateConfig,
    ModelConfig,
    Precision,
    VoicesConfig,
)
from pipeline.errors import UserError
from pipeline.option import options, validate

NAMED = ("engine", "voice", "sampling", "precision")  # groups of named choices
CONF = Path(conf.__file__).parent
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # controls, line ends, broken UTF-8
QUOTING = "quote a value with = , ( ) spaces or letters outside ASCII, as in \"book='My Book (1).txt'\""


def register(name: str, schema: type) -> None:
    """Register with Hydra: `schema` as `<name>_schema`, engine schemas, and the resolvers of the YAML files."""
    store = ConfigStore.instance()
    store.store(f"{name}_schema", _writable(schema))
    for engine, config in ENGINE_CONFIGS.items():
        store.store(f"{engine}_schema", _writable(config), group="engine")
    OmegaConf.register_new_resolver("usage", lambda: usage(name, schema), replace=True)
    OmegaConf.register_new_resolver("conf", lambda path: str(CONF / path), replace=True)
    OmegaConf.register_new_resolver("scratch", _scratch, use_cache=True, replace=True)


def _writable(schema: type) -> DictConfig:
    """`schema` as a writable configuration: OmegaConf makes one of a frozen dataclass read-only."""
    config = OmegaConf.structured(schema)
    nodes = [config]
    while nodes:
        node = nodes.pop()
        node._set_flag("readonly", None)
        nodes += [child for key in node if isinstance(child := node._get_node(key), DictConfig)]
    return config


def _scratch() -> str:
    """A folder for the file that --multirun always writes; deleted at exit."""
    folder = tempfile.mkdtemp(prefix="hydra-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def to_dataclass(config: DictConfig, schema: type) -> Any:
    """The typed, validated configuration. `UserError` for options that are missing, unknown or out of range."""
    try:
        if missing := OmegaConf.missing_keys(config):
            raise UserError(f"{min(missing)}= is missing; --help shows how")
        OmegaConf.resolve(config)  # else to_object accepts sampling as text in `text=${sampling}`
        _reject_unknown(config)
        typed = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(one_line(error)) from error
    _reject_unusable(asdict(typed))
    validate(typed)
    return typed


def _reject_unknown(config: DictConfig, prefix: str = "") -> None:
    """`UserError` for an unknown option: Hydra accepts `+extra=1` even in a typed configuration."""
    known = {f.name for f in fields(OmegaConf.get_type(config))}
    for key in config:
        if key not in known:
            raise UserError(_no_such_option(f"{prefix}{key}"))
        if isinstance(child := config._get_node(key), DictConfig):
            _reject_unknown(child, f"{prefix}{key}.")


def _reject_unusable(values: dict[str, Any], prefix: str = "") -> None:
    """`UserError` for empty strings, mostly unset shell variables, and for strings that cannot be printed."""
    for key, value in values.items():
        if isinstance(value, dict):
            _reject_unusable(value, f"{prefix}{key}.")
        elif value == "":
            raise UserError(f"{prefix}{key}= has no value; give one, or leave the option out")
        elif isinstance(value, str) and UNPRINTABLE.search(value):
            raise UserError(f"{prefix}{key}={value!r} holds control characters or is not UTF-8; rename it")


def one_line(error: Exception) -> str:
    """Hydra's or OmegaConf's message in one line, with advice for these jobs."""
    return UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], _shorten(error))


def _shorten(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    first, second = [*text.splitlines(), ""][:2]
    cause = str(error.__cause__ or "").strip().splitlines()
    if isinstance(error, OverrideParseException):
        return f"cannot read the option {error.override}; {QUOTING}"
    if found := re.match(r"Ambiguous value for argument '(.+)'", first):
        return f"{found[1]} is several values (a sweep wants --multirun); {QUOTING}"
    if found := re.match(r"Could not override '([^']+)'", first):
        return _no_such_option(found[1])
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        there = choices(found[1])
        return f"{found[1]}={found[2]}: no such choice" + (f"; one of {', '.join(there)}" if there else "")
    if found := re.match(r"Error merging override (.+)", first):
        return f"{found[1]}: {cause[0] if cause else 'wrong value'}"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {first}"
    return f"{first} {second}" if first.endswith(":") else first


def _no_such_option(name: str) -> str:
    jobs = (GenerateConfig, BenchmarkConfig, VoicesConfig, AuditConfig)
    known = [option for schema in jobs for option, _ in all_options(schema)]
    near = difflib.get_close_matches(name, known, n=1)
    if near == [name]:
        return f"the option {name} belongs to another engine or job than the one chosen"
    return f"there is no option {name}" + (f"; did you mean {near[0]}?" if near else "; --help lists all")


def all_options(schema: type) -> Iterator[tuple[str, Field]]:
    """Every option of a job and of each engine: dotted name and dataclass field."""
    for name, field in options(schema):
        if name != "engine.name":
            yield name, field
    for engine in schema.engines if issubclass(schema, ModelConfig) else ():
        own = options(ENGINE_CONFIGS[engine], "engine.")
        yield from ((name, field) for name, field in own if name != "engine.name")


def choices(group: str) -> list[str]:
    """The named choices of a folder of `conf/`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def read_policies() -> dict[str, Precision]:
    """Named precision policies without `auto`, by name."""
    made = {name: _precision(CONF / "precision" / f"{name}.yaml") for name in choices("precision")}
    return {name: policy for name, policy in made.items() if "auto" not in vars(policy).values()}


def _precision(path: Path) -> Precision:
    return OmegaConf.to_object(OmegaConf.merge(_writable(Precision), OmegaConf.load(path)))


def usage(name: str, schema: type) -> str:
    """The --help text: the named choices, then every option with its default, meaning, unit and range."""
    lines = [f"python -m jobs.{name} OPTION=VALUE ...", ""]
    if groups := [f.name for f in fields(schema) if f.name in NAMED and issubclass(schema, ModelConfig)]:
        lines += ["named choices:", *(f"  {group}=" + "|".join(choices(group)) for group in groups), ""]
    lines += ["options:"] + [
        f"  {option}={default(f)}".ljust(36) + f" {meaning(f)}" for option, f in all_options(schema)
    ]
    lines += ["", "Hydra's own: --cfg job, --multirun, --config-dir DIR (your own voice/NAME.yaml and the like)"]
    return "\n".join(lines).replace("$", "$$")  # Hydra reads it as a string.Template


def default(field: Field) -> str:
    return {None: "null", "???": ""}.get(field.default, str(field.default))


def meaning(field: Field) -> str:
    """What the option means, its unit and its range or choices."""
    low, high, names = (field.metadata[key] for key in ("low", "high", "choices"))
    limits = "|".join(names) or ("" if low is None else f"{low} or more" if high is None else f"{low} to {high}")
    notes = ", ".join(note for note in (field.metadata["unit"], limits) if note)
    return field.metadata["meaning"] + (f" ({notes})" if notes else "")
