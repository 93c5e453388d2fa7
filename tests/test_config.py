from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from jobs.catalogue import CONF, all_options, choices, default, meaning
from jobs.options import register, to_dataclass
from pipeline.config import (
    AuditConfig,
    BenchmarkConfig,
    ChatterboxConfig,
    GenerateConfig,
    Precision,
    Sampling,
    TextConfig,
    VoicesConfig,
)
from pipeline.errors import UserError
from pipeline.option import validate
from pipeline.store.schema import COLUMNS

REFERENCE = Path(__file__).parents[1] / "docs" / "reference.md"


@pytest.mark.parametrize("schema", [GenerateConfig, VoicesConfig, AuditConfig, BenchmarkConfig])
def test_every_option_has_a_meaning_and_every_number_a_range(schema):
    for name, field in all_options(schema):
        assert field.metadata["meaning"], name
        if isinstance(field.default, float) or field.type in (int, float):
            assert field.metadata["low"] is not None, name


def table(name: str) -> list[str]:
    """The rows of a table in the reference, between its two marks."""
    text = REFERENCE.read_text(encoding="utf-8").split(f"<!-- {name} -->\n")[1].split(f"<!-- /{name} -->")[0]
    return text.splitlines()[2:]


@pytest.mark.parametrize(
    "name, options",
    [
        ("options", all_options(GenerateConfig)),
        ("audit options", all_options(AuditConfig)),
        ("benchmark options", all_options(BenchmarkConfig)),
        ("voices options", all_options(VoicesConfig)),
    ],
)
def test_the_reference_lists_every_option_as_it_is(name, options):
    assert table(name) == [
        f"| `{name}` | {default(field) or '(required)'} | {meaning(field).replace('|', ', ')} |"
        for name, field in options
    ]


def test_the_reference_lists_every_column_as_it_is():
    assert table("columns") == [f"| `{one.name}` | {one.type} | {one.meaning} | {one.since} |" for one in COLUMNS]


def test_the_readme_is_short():
    """A visitor reads a page or two; the rest is in docs/."""
    readme = REFERENCE.parents[1] / "README.md"
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize(
    "group, choice", [(g, c) for g in ("engine", "voice", "sampling", "precision") for c in choices(g)]
)
def test_every_named_choice_makes_a_valid_configuration(group, choice):
    register("generate", GenerateConfig)
    with initialize_config_module("conf", version_base="1.3"):
        config = to_dataclass(compose("generate", ["book=x", f"{group}={choice}"]), GenerateConfig)
    assert isinstance(config, GenerateConfig)


def test_the_defaults_are_stock_chatterboxs():
    register("generate", GenerateConfig)
    with initialize_config_module("conf", version_base="1.3"):
        stock = to_dataclass(compose("generate", ["book=x"]), GenerateConfig).sampling
        fast = to_dataclass(compose("generate", ["book=x", "sampling=fast"]), GenerateConfig).sampling
    assert stock == Sampling(0.5, 0.5, 0.8, 1.2, 0.05, 1.0)
    assert fast == Sampling(0.35, 0.3, 0.7, 1.2, 0.05, 1.0)


def test_a_named_voice_brings_its_clip_its_licence_and_its_exaggeration():
    register("generate", GenerateConfig)
    with initialize_config_module("conf", version_base="1.3"):
        config = to_dataclass(compose("generate", ["book=x", "voice=narrator"]), GenerateConfig)
        louder = to_dataclass(
            compose("generate", ["book=x", "voice=narrator", "sampling.exaggeration=1"]), GenerateConfig
        )
    assert config.voice.path == str(CONF / "voice" / "narrator.flac") and config.voice.licence
    assert config.sampling.exaggeration == 0.4 and louder.sampling.exaggeration == 1


@pytest.mark.parametrize("value", [-1, 281, float("nan"), float("inf")])
def test_a_value_out_of_range_is_named_with_its_range(value):
    with pytest.raises(UserError, match=r"join_chars=.* 0 or more, 280 or less characters"):
        validate(replace(TextConfig(), join_chars=value))


def test_a_precision_is_one_word_when_all_components_agree():
    assert str(Precision("fp32", "fp32", "fp32", "fp32")) == "fp32"
    assert str(Precision("bf16", "tf32", "tf32", "fp32")) == "t3=bf16 flow=tf32 vocoder=tf32 voice_encoder=fp32"


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:", "cuda:N", "CPU", ""])
def test_a_misspelt_device_is_a_user_error(device):
    with pytest.raises(UserError, match=f"device={device} is out of range: one of auto, cpu"):
        validate(GenerateConfig(book="x", engine=ChatterboxConfig(), device=device))


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:15", "mps"])
def test_every_device_name_is_accepted_before_anything_is_looked_for(device):
    validate(GenerateConfig(book="x", engine=ChatterboxConfig(), device=device))
