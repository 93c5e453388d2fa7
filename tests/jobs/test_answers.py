"""What a wrong command line is answered: one line that names the thing, the value and the way out; exit 2."""

import importlib.metadata
import os
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from jobs.answers import PLAIN, spelled

MISSPELT = {
    "generate engin=espeak": "no option engin; did you mean engine?",
    "generate samplng=fast": "no option samplng; did you mean sampling?",
    "generate BOOK=story.txt": "no option BOOK; did you mean book?",
    "generate temperature=0.5": "did you mean sampling.temperature?",
    "generate clips=x": "the option clips belongs to jobs.voices, not to this job",
    "generate engine.rate_wpm=200": "engine.rate_wpm belongs to engine=espeak, not to the engine chosen",
    "audit out=x": "the option out belongs to jobs.generate and jobs.benchmark, not to this job",
    "voices voice=narrator": "no option voice; there is voice.prompt_seconds",
    "generate book=x voice={nme:anna}": "no option voice.nme; did you mean voice.name?",
    "benchmark engin=chatterbox": "no option engin; did you mean engine?",
}
UNREADABLE = {
    "generate book story.txt": "book story.txt: the = is missing; write book=story.txt",
    "generate book = story.txt": "book = story.txt: no spaces around the =; write book=story.txt",
    "generate book= story.txt": "book= story.txt: no spaces around the =; write book=story.txt",
    "generate book =story.txt": "book =story.txt: no spaces around the =; write book=story.txt",
    "generate story.txt": "story.txt is not NAME=VALUE; write book=story.txt",
    "generate book:story.txt": "the = is missing; write book=story.txt",
    "generate book=story.txt dry_run": "the = is missing; write dry_run=true",
    "generate book=My Book.txt": "a space ends a value; write \"book='My Book.txt'\"",
    "generate book=story.txt ''": "a word of the command line is empty",
    "generate 'book=My Book (1).txt'": "quote a value as in \"book='My Book (1).txt'\"",
    "generate book=~/story.txt": "~ is not replaced here; write book=$HOME/story.txt",
    "generate book=story.txt chapters=1,2": 'several values; a sweep wants --multirun; for one value write "chapters',
    "generate 'book=${x}.txt'": "'x' not found; for the characters themselves write 'book=\"\\${x}.txt\"'",
    "generate --book story.txt": "--book: options have no dashes and want a =; write book=story.txt",
    "generate --dry-run book=story.txt": "write dry_run=true",
    "generate --limt=3": "there is no flag --limt; did you mean limit=3? --help lists all",
    "generate --cfg jb": "argument --cfg/-c: invalid choice: 'jb'",
    "audit --run outputs": "--run: options have no dashes and want a =; write run=outputs",
    "voices clips recordings": "clips recordings: the = is missing; write clips=recordings",
}
UNFIT = {
    "generate book=story.txt limit=abc": "limit=abc is not a whole number (utterances, 1 or more)",
    "generate book=story.txt limit=": "limit= has no value; give one, or leave the option out",
    "generate book=story.txt dry_run=maybe": "dry_run=maybe is not true or false",
    "generate book=story.txt wandb=disabled": "wandb is a group of options: wandb.mode, wandb.project",
    "generate book=story.txt engine=espeak chapters=2-1": "chapters=2-1: 2-1 is reversed; write 1-2",
    "generate book=story.txt +voice=builtin": "voice is chosen twice; write voice=NAME once",
    "generate book=story.txt voice=me.wav": "one of builtin, narrator; a recording is voice.path=me.wav",
    "generate book=story.txt hydra/launcher=slrm": "hydra/launcher=slrm: no such choice; one of basic",
    "generate book=story.txt engine=espeak out=link": "out=link: link is a link to /nowhere/else, which is not there",
    "generate book=story.txt engine=espeak out=link/run": "out=link/run: link is a link to /nowhere/else",
    "generate book=story.txt engine=espeak out=story.txt": "out=story.txt: story.txt is a file",
    "benchmark book=story.txt engine.checkpoint=stand-in-tiny out=link": "link is a link to /nowhere/else",
    "voices clips=nowhere": "clips=nowhere: no such folder",
    "voices clips=story.txt": "clips=story.txt: this is a file",
}


@pytest.fixture
def refused(job, story, tmp_path):
    """The line that a wrong command line is answered, in a folder with a book and a link that leads nowhere."""
    (tmp_path / "link").symlink_to("/nowhere/else")
    before = sorted(os.listdir(tmp_path))

    def refuse(line: str) -> str:
        ended = job(*shlex.split(line))
        assert ended.code == 2 and ended.out == "" and sorted(os.listdir(tmp_path)) == before
        assert ended.err.startswith("error: ") and ended.err.count("\n") == 1
        return ended.err

    return refuse


@pytest.mark.parametrize("line", MISSPELT)
def test_a_misspelt_name_is_answered_with_the_one_that_was_meant(refused, line):
    assert MISSPELT[line] in refused(line)


@pytest.mark.parametrize("line", UNREADABLE)
def test_a_line_that_cannot_be_read_is_answered_with_what_to_type(refused, line):
    assert UNREADABLE[line] in refused(line)


@pytest.mark.parametrize("line", UNFIT)
def test_a_value_that_does_not_fit_is_answered_with_what_does(refused, line):
    assert UNFIT[line] in refused(line)


@pytest.fixture
def own_choices(tmp_path) -> Path:
    (tmp_path / "mine" / "voice").mkdir(parents=True)
    (tmp_path / "mine" / "voice" / "anna.yaml").write_text("name: anna")
    (tmp_path / "mine" / "voice" / "typo.yaml").write_text("nme: anna")
    (tmp_path / "mine" / "voice" / "broken.yaml").write_text("name: [")
    return tmp_path / "mine"


def test_a_wrong_choice_lists_those_of_config_dir_too(own_choices, refused):
    assert "one of anna, broken, builtin, narrator, typo" in refused("generate --config-dir mine book=x voice=ana")


def test_a_wrong_file_of_named_choices_is_named(own_choices, refused):
    assert "voice/typo.yaml: there is no option nme" in refused("generate --config-dir mine book=x voice=typo")
    assert "broken.yaml, line 1: not YAML" in refused("generate --config-dir mine book=x voice=broken")
    assert "--config-dir mne: no such folder" in refused("generate --config-dir mne book=x voice=anna")


def test_flags_may_stand_anywhere(own_choices, job, story):
    ended = job("generate", "book=story.txt", "--config-dir", "mine", "voice=anna", "dry_run=true")
    assert ended.code == 0 and "chosen: " in ended.out


def test_the_version_is_that_of_the_product(job):
    ended = job("generate", "--version")
    assert (ended.code, ended.out) == (0, f"chatterbox-batch {importlib.metadata.version('chatterbox-batch')}\n")


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])).filter(
        lambda v: not PLAIN.fullmatch(v)
    )
)
@example("${x}.txt")
@example('it\'s \\ "${a}" \\\\${b}\\')
@example("!x`ls`$HOME")
@settings(max_examples=60, deadline=None)
def test_what_a_user_is_told_to_type_gives_exactly_that_value(value):
    (word,) = shlex.split(spelled("book", value))
    override = OverridesParser.create().parse_override(word)
    assert str(OmegaConf.create({"book": override.value()}).book) == value


def test_a_file_whose_name_looks_like_a_reference_is_read_as_the_answer_says(job, story):
    story.rename("${x}.txt")
    ended = job("generate", shlex.split(spelled("book", "${x}.txt"))[0], "engine=espeak", "dry_run=true")
    assert ended.code == 0 and "chosen: " in ended.out
