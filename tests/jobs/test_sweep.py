"""A sweep never renders over itself; what may share a folder goes on doing so."""

import importlib
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins

from jobs.catalogue import all_options
from jobs.sweep import SHARED
from pipeline.config import ChatterboxConfig, EspeakConfig, GenerateConfig
from pipeline.engine.registry import build_engine
from pipeline.plan import make_plan, parameters
from pipeline.text.reader import read_book
from pipeline.text.segment import segment

from ..conftest import STORY, UNMARKED
from .test_generate import OUT, wav_bytes


@pytest.fixture
def sweep(draft):
    return lambda *more: draft("--multirun", UNMARKED, "limit=1", *more)


@pytest.mark.parametrize(
    "swept, one, other",
    [
        (["seed=1,2"], "seed=1", "seed=2"),
        (["sampling.temperature=0.7,0.8", "shard=0,1", "num_shards=2"], "temperature=0.7", "temperature=0.8"),
        (["text.join_chars=0,200"], "text.join_chars=0", "text.join_chars=200"),
        (["voice=glob(*)"], "voice=builtin", "voice=narrator"),
        (["engine=espeak,chatterbox"], "engine=espeak", "engine=chatterbox"),
        (["book=story.txt,other/story.txt"], "book=story.txt", "book=other/story.txt"),
        (["seed=1,2", "out=a,a"], "seed=1", "seed=2"),
        (["sampling.temperature=interval(0.5,1)"], "temperature=0.5", "temperature=1.0"),  # of other sweepers
    ],
)
def test_jobs_that_would_replace_each_others_speech_are_refused_before_the_first(
    sweep, tmp_path, story, swept, one, other
):
    ended = sweep(*swept)
    folder = "a" if "out=a,a" in swept else OUT
    assert ended.code == 2 and ended.err.count("\n") == 1 and f"{one} and " in ended.err and f"{other} of" in ended.err
    assert f"one folder, {folder}; give each its own: out='{folder}-${{hydra:job.num}}'" in ended.err
    assert list(tmp_path.iterdir()) == [story]


def test_a_sweep_that_follows_the_advice_has_a_folder_for_each_job(sweep):
    assert sweep("seed=1,2", f"out={OUT}-${{hydra:job.num}}").code == 0
    assert len(wav_bytes(Path(f"{OUT}-0"))) == len(wav_bytes(Path(f"{OUT}-1"))) == 1


@pytest.mark.parametrize("swept", [["shard=0,1", "num_shards=2"], ["chapters=1,2"], ["limit=1,2"]])
def test_parts_of_one_run_share_its_folder(draft, swept):
    assert draft("--multirun", UNMARKED, *swept).code == 0 and len(wav_bytes()) >= 2


def test_books_have_folders_of_their_own(job, tmp_path, story):
    (tmp_path / "second.txt").write_text(STORY)
    options = ("book=story.txt,second.txt", "engine=espeak", "wandb.mode=disabled", UNMARKED, "limit=1")
    assert job("generate", "--multirun", *options).code == 0
    assert wav_bytes() and wav_bytes(Path("outputs/second"))


def test_dry_runs_have_no_folder_to_share(sweep):
    assert sweep("seed=1,2", "dry_run=true").code == 0


def test_settings_that_cannot_be_read_are_told_once_by_the_sweep_itself(sweep):
    for swept, told in (
        ("engine=espeek,espeak", "engine=espeek: no such choice"),
        ("seed=1,x", "seed=x is not"),
        ("book=glob(*.txt)", "book=glob(*.txt) stands for no value"),
    ):
        ended = sweep(swept)
        assert ended.code == 2 and ended.err.count("\n") == 1 and told in ended.err


ONE_BY_ONE = """
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class OneByOne(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        for seed in range(2):
            self.launcher.launch([[*arguments, f"seed={seed}"]], initial_job_idx=seed)

ConfigStore.instance().store("one_by_one", dict(_target_=f"{__name__}.OneByOne"), group="hydra/sweeper")
"""


def test_a_sweeper_that_draws_each_job_anew_is_stopped_before_one_renders_over_another(sweep, tmp_path, monkeypatch):
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "one_by_one.py").write_text(ONE_BY_ONE)
    monkeypatch.syspath_prepend(tmp_path)
    Plugins.instance().register(importlib.import_module("hydra_plugins.one_by_one").OneByOne)
    ended = sweep("hydra/sweeper=one_by_one")
    assert ended.code == 2 and "seed=0 and seed=1 of this sweep would render into one folder" in ended.err
    assert len(wav_bytes()) == 1 and "0 to render" in sweep("seed=0").out


def other_value(field):
    """A valid value of an option beside its default."""
    if field.metadata["choices"]:
        return next(one for one in reversed(field.metadata["choices"]) if one != field.default and one != "cuda:N")
    if isinstance(field.default, bool):
        return not field.default
    if field.metadata["low"] is not None:
        low = field.metadata["low"]
        return low if low != field.default else low + 1
    return "other"


def changed(config, name, field):
    head, _, rest = name.partition(".")
    value = changed(getattr(config, head), rest, field) if rest else other_value(field)
    return replace(config, **{head: value})


def rows_made_by(config):
    identity = build_engine(config).identity
    planned = make_plan(
        segment(read_book("story.txt"), config.text), parameters(identity, config), config.plan.chars_per_second
    )
    return identity.speaker, [(asdict(item.utterance), item.key, item.seed) for item in planned]


LONG = "Here " + ", and then ".join(f"he saw door number {number} of the house" for number in range(20))
ELSEWHERE = ("book", "engine.checkpoint", "engine.revision", "voice.path")  # they want files or a network


@pytest.mark.parametrize("engine", [ChatterboxConfig(checkpoint="stand-in-tiny"), EspeakConfig()])
def test_exactly_the_options_that_change_no_row_are_those_that_jobs_of_one_folder_may_differ_in(engine, job, story):
    story.write_text(f"{STORY}\n\n{LONG}. {LONG}.")
    config = GenerateConfig(book="story.txt", engine=engine)
    rows, own = rows_made_by(config), {f"engine.{name}" for name in vars(engine)}
    for name, field in all_options(GenerateConfig):
        if name in own - set(ELSEWHERE) or engine.name == "chatterbox" and not name.startswith(("engine.", *ELSEWHERE)):
            shared = name in SHARED or name.partition(".")[0] in SHARED
            assert (rows_made_by(changed(config, name, field)) == rows) == shared, name
