"""150 command lines with options that are wrong, or look it."""

import os
from random import Random

import pytest

from jobs.catalogue import all_options, choices
from pipeline.config import GenerateConfig

from .conftest import assert_planned_or_refused, one_line

OPTIONS = [name for name, _ in all_options(GenerateConfig)]
GROUPS = ["engine", "voice", "sampling", "precision"]
NAMES = [
    *("text", "check", "engine.name", "engine.nothing", "sampling.a.b", "nothing", "a.b.c", "book.a", "seed.a", ""),
    *("é", "名前", "a\nb", "'book'", "[0]", "0", "engine/x", "/engine", "engine@_global_", "voice@sampling", "job"),
    *("hydra.job.name", "hydra.nothing", "hydra.mode", "hydra.callbacks", "hydra/launcher", "generate_schema"),
]
VALUES = [
    *("", "''", '""', "0", "-1", "1.5", "1e400", "1e-400", "-0", "nan", "-inf", "inf", "NaN", "0x10", "1_0"),
    *("9" * 300, "１", "'²'", "'٣'", "1-2", "'1,2'", "'1-'", "true", "null", "???", "'???'", "story.txt", "espeak"),
    *("x", "~", "..", "/", "a,b", "a,", ",a", "[a", "[1,2]", "[]", "{a:1}", "{a", "{}", "(a)", "a b", "a:b", "a=b"),
    *("a\\", "'a", 'a"', "#", "%s", "é", "'é'", "'名前 (1)'", "'\u202e'", "'a\nb'", "a\nb", "'a\tb'", "'\udce9'"),
    *("'\u2028'", "'\x1b[31m'", "'a\0b'", "x" * 5000, "../../../etc/passwd", "espeak.yaml", "chatterbox_schema"),
    *("${seed}", "${text}", "${sampling}", "${nothing}", "${.x}", "${....x}", "${", "${}", "'${'", "${voice.name}"),
    *("${oc.env:NOTHING}", "${oc.decode:'{'}", "${oc.create:[1]}", "${conf:}", "${conf:a}", "${nothing:1}"),
    *("${usage:}", "choice(a,b)", "range(1,3)", "glob(*)", "int(x)", "int(3)", "str(a)", "sort(3,1)", "nothing(1)"),
    *("interval(0,1)", "[espeak,chatterbox]"),
]
FORMS = ["{}={}"] * 8 + [
    "+{}={}",
    "++{}={}",
    "~{}={}",
    "~{}",
    "{}",
    "{}=={}",
    " {} = {} ",
    "{}@x={}",
    "@{}={}",
    "{}:{}",
]


def odd_option(rng: Random) -> str:
    names = rng.choice([OPTIONS, OPTIONS, GROUPS, NAMES])
    name, value = rng.choice(names), rng.choice([*VALUES, *choices(rng.choice(GROUPS))])
    option = rng.choice(FORMS).format(name, value)
    if rng.random() < 0.2:
        at = rng.randrange(len(option) + 1)
        option = option[:at] + rng.choice("=,()[]{}$'\"\\~+@:./ \n%é\u200b") + option[at:]
    return option if not option.startswith("-") else f"={option}"


@pytest.mark.parametrize("number", range(150))
def test_odd_options_are_taken_or_refused_in_one_line_and_nothing_is_written(number, job, story, tmp_path):
    rng = Random(f"options {number}")
    odd = [odd_option(rng) for _ in range(rng.choice([1, 1, 2, 3]))]
    print(odd)  # shown when the test fails
    assert_planned_or_refused(job("generate", "book=story.txt", "engine=espeak", *odd, "dry_run=true"))
    assert os.listdir(tmp_path) == ["story.txt"]


TOLD = {
    "voice.path=": "voice.path= has no value",  # an unset variable in a script
    "voice.name='a\nb'": r"voice.name='a\nb' holds control characters",
    "book=a\nb": r"cannot read the option book=a\nb; quote",
    "book='\udce9.txt'": r"book='\udce9.txt' holds control characters or is not UTF-8",
    "text=${sampling}": "Sampling is not a subclass of TextConfig",
    "out=${out}": "out: Recursive interpolation detected",
    "engine=[espeak,chatterbox]": "ChatterboxConfig is not a subclass of EspeakConfig",
    "engine.checkpoint='~nobody_of_this_name'": "engine.checkpoint=~nobody_of_this_name: no such folder",
    "engine.checkpoint=" + "x" * 5000: "no such folder",
}


@pytest.mark.parametrize("option", TOLD)
def test_an_odd_option_is_told_in_words_that_help(option, job, story):
    ended = job(
        "generate", "book=story.txt", "engine=" + ("chatterbox" if "checkpoint" in option else "espeak"), option
    )
    assert ended.code == 2 and TOLD[option] in ended.err and one_line(ended.err.rstrip("\n"))
