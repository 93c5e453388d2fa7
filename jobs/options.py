"""From `pipeline.config` to Hydra and back: the schemas, and the typed configuration of a job."""

import atexit
import copy
import shutil
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jobs.answers import UNPRINTABLE, no_such_option, one_line
from jobs.catalogue import CONF, choices, usage
from pipeline.config import ENGINE_CONFIGS, Precision
from pipeline.errors import UserError
from pipeline.option import validate


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
        # Resolved apart: to_object alone accepts sampling as text in `text=${sampling}`, and what is resolved once
        # has lost the mark of an escaped `${`.
        resolved = copy.deepcopy(config)
        OmegaConf.resolve(resolved)
        _reject_unknown(resolved, schema)
        typed = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise UserError(one_line(error, schema)) from error
    _reject_unusable(asdict(typed))
    validate(typed)
    return typed


def _reject_unknown(config: DictConfig, schema: type, prefix: str = "") -> None:
    """`UserError` for an unknown option: Hydra accepts `+extra=1` even in a typed configuration."""
    known = {f.name for f in fields(OmegaConf.get_type(config))}
    for key in config:
        if key not in known:
            raise UserError(no_such_option(f"{prefix}{key}", schema))
        if isinstance(child := config._get_node(key), DictConfig):
            _reject_unknown(child, schema, f"{prefix}{key}.")


def _reject_unusable(values: dict[str, Any], prefix: str = "") -> None:
    """`UserError` for empty strings, mostly unset shell variables, and for strings that cannot be printed."""
    for key, value in values.items():
        if isinstance(value, dict):
            _reject_unusable(value, f"{prefix}{key}.")
        elif value == "":
            raise UserError(f"{prefix}{key}= has no value; give one, or leave the option out")
        elif isinstance(value, str) and UNPRINTABLE.search(value):
            raise UserError(f"{prefix}{key}={value!r} holds control characters or is not UTF-8; rename it")


def read_policies() -> dict[str, Precision]:
    """Named precision policies without `auto`, by name."""
    made = {name: _precision(CONF / "precision" / f"{name}.yaml") for name in choices("precision")}
    return {name: policy for name, policy in made.items() if "auto" not in vars(policy).values()}


def _precision(path: Path) -> Precision:
    return OmegaConf.to_object(OmegaConf.merge(_writable(Precision), OmegaConf.load(path)))
