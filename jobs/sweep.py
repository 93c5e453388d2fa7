"""The jobs of a sweep may share a folder only if they make the same speech of the same text.

Hydra calls `FolderForEach` before a sweep's first job, whatever sweeper and launcher it has. Knows nothing of how a
job is run.
"""

import copy
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any, NoReturn

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from jobs.options import to_dataclass
from pipeline.config import GenerateConfig
from pipeline.errors import UserError

log = logging.getLogger(__name__)

# Options, and groups of them, that change neither text nor speech: with them alone, jobs add to one folder.
SHARED = frozenset(
    {"grace_s", "device", "plan", "check", "watermark.threshold", "wandb", "max_failures", "dry_run", "replace", "out"}
    | {"chapters", "limit", "shard", "num_shards", "voice.licence", "max_restarts", "hang_s", "hang"}
    | {f"engine.{name}" for name in ("batch_size", "memory", "cache", "compile", "compile_cache")}
)


Folders = dict[str, tuple[dict[str, Any], list[str]]]  # by path: what is spoken, by which settings


class FolderForEach(Callback):
    """Ends the process, exit code 2, if a job of a sweep would render over another one."""

    def __init__(self) -> None:
        self._started: Folders = {}  # by jobs of this process

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        planned: Folders = {}
        before = HydraConfig.instance().cfg
        try:
            for job in compose_jobs(config):
                HydraConfig.instance().set_config(job)  # for ${hydra:job.num}
                take_folder(job, planned)
        except UserError as error:
            end(error)
        except (HydraException, OmegaConfBaseException) as error:
            log.debug("the sweeper will say so itself: %s", error)
        finally:
            HydraConfig.instance().cfg = before

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """For sweepers that choose the next job by the results of those before."""
        if config.hydra.mode == RunMode.MULTIRUN:
            try:
                take_folder(config, self._started)
            except UserError as error:
                end(error)


def end(error: UserError) -> NoReturn:
    """Hydra makes a mere warning of any exception in a callback but this."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


def take_folder(job: DictConfig, taken: Folders) -> None:
    """Note what a job renders into its folder. `UserError` if another one renders something else there."""
    from pipeline.run.book_plan import find_folder  # here: Hydra imports this module before each job

    settings = _words(job)
    try:
        typed = to_dataclass(_without_hydra(job), GenerateConfig)
    except UserError:
        return  # the job itself will say so
    if typed.dry_run:
        return
    root, spoken = find_folder(typed).root, spoken_by(asdict(typed))
    first = taken.setdefault(str(root.resolve()), (spoken, settings))
    if first[0] != spoken:
        one, other = _not_in(first[1], settings), _not_in(settings, first[1])
        raise UserError(
            f"{one} and {other} of this sweep would render into one folder, {root}; "
            f"give each its own: out='{root}-${{hydra:job.num}}'"
        )


def _not_in(settings: Sequence[str], others: Sequence[str]) -> str:
    known = {word.lower() for word in others}  # a sweeper writes True for true
    return " ".join(word for word in settings if word.lower() not in known)


def spoken_by(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What of a job's options decides what is spoken and how it sounds, by dotted name."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if (dotted := f"{prefix}{name}") not in SHARED:
            found |= spoken_by(value, f"{dotted}.") if isinstance(value, Mapping) else {dotted: value}
    return found


def compose_jobs(config: DictConfig) -> Iterator[DictConfig]:
    """The configurations of a sweep's jobs, one for all values of an option in `SHARED`."""
    loader = GlobalHydra.instance().config_loader()
    params = config.hydra.sweeper.get("params") or {}
    words = [*(f"{name}={value}" for name, value in params.items()), *_words(config)]
    settings = {one.get_key_element(): one for one in OverridesParser.create(loader).parse_overrides(words)}
    for number, chosen in enumerate(product(*map(_values, settings.values()))):
        job = loader.load_sweep_config(config, list(chosen))
        with open_dict(job):
            job.hydra.job.id = job.hydra.job.num = number
        yield job


def _values(setting: Override) -> list[str]:
    """A setting for each value that it sweeps over; of an interval, both its ends."""
    name = setting.get_key_element()
    if not setting.is_sweep_override():
        return [setting.input_line]
    if isinstance(span := setting.value(), IntervalSweep):
        return [f"{name}={span.start}", f"{name}={span.end}"]
    if not (values := [f"{name}={value}" for value in setting.sweep_string_iterator()]):
        raise UserError(f"{setting.input_line} stands for no value; glob() is for named choices, not for files")
    return values[:1] if name in SHARED and name != "out" else values


def _words(config: DictConfig) -> list[str]:
    """The job's options as typed."""
    return OmegaConf.to_container(config.hydra.overrides.task, resolve=False)


def _without_hydra(job: DictConfig) -> DictConfig:
    own = copy.deepcopy(job)
    with read_write(own), open_dict(own):
        del own["hydra"]
    return own
