"""What wrong options get: one line that names the option, exit 2, nothing written."""

import subprocess
import sys

import pytest

WRONG = {
    "": "book= is missing",
    "book=x bok=1": "did you mean book?",
    "book=x +extra=1": "no option extra",
    "book=x +sampling.extra=1": "no option sampling.extra",
    "book=x sampling.temperature=nan": "sampling.temperature=nan is out of range: 0.05 or more, 5 or less",
    "book=x sampling.temperature=inf": "sampling.temperature=inf is out of range",
    "book=x sampling.temperature=hot": "sampling.temperature=hot is not a number (0.05 to 5)",
    "book=x limit=0": "limit=0 is out of range: 1 or more",
    "book=x shard=1.5": "shard=1.5 is not a whole number (0 or more)",
    "book=x engine=festival": "engine=festival: no such choice; one of chatterbox, espeak\n",
    "book=x engine.name=festival": "engine.name=festival",
    "book=x voice=nobody": "voice=nobody: no such choice; one of builtin, narrator",
    "book=x precision.t3=int4": "one of auto, fp32, tf32, bf16, fp16 wanted",
    "book=x engine=espeak engine.checkpoint=y": "engine.checkpoint belongs to engine=chatterbox, not to",
    "book=x engine=espeak device=banana": "device=banana is out of range: one of auto, cpu, cuda, cuda:N, mps",
    "book=x device=cuda:": "device=cuda: is out of range",
    "book=my=book.txt": "quote a value",
    "book=a,b": "book=a,b is several values",
    "book=null": "book=null",
    "book=x device='cuda:٣'": "device=cuda:٣ is out of range",
    "book=x device=cuda:99999999999999999999": "is out of range: one of auto, cpu, cuda, cuda:N, mps",
    f"book=x limit={'9' * 400} shard=-1": "shard=-1 is out of range: 0 or more",
    "book=x out=${nowhere}": "'nowhere' not found",
    "=3": "=3: it is not NAME=VALUE",
    "book": "book: the = is missing; write book=VALUE",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_option_is_one_line_and_exit_2_and_nothing_is_written(job, tmp_path, line):
    ended = job("generate", *line.split())
    assert ended.code == 2
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1 and WRONG[line] in ended.err
    assert ended.out == "" and list(tmp_path.iterdir()) == []


def test_a_wrong_option_of_one_shard_does_not_keep_the_others_from_running(job, story):
    ended = job(
        "generate", "--multirun", "book=story.txt", "engine=espeak", "dry_run=true", "num_shards=2", "shard=0,7,1"
    )
    assert ended.code == 2 and ended.err.count("error: ") == 1 and "shard=7" in ended.err
    assert ended.out.count("chosen: ") == 2


def test_multirun_leaves_no_files_of_its_own(job, story, tmp_path):
    assert job("generate", "--multirun", "book=story.txt", "dry_run=true", "shard=0,1", "num_shards=2").code == 0
    assert list(tmp_path.iterdir()) == [story]


HELP = """
import runpy, sys
sys.argv = ["generate", "--help"]
try:
    runpy.run_module("jobs.generate", run_name="__main__")
finally:
    print([name for name in ("torch", "nltk", "chatterbox", "wandb", "pyarrow", "librosa") if name in sys.modules])
"""


def test_help_names_every_option_with_its_range_and_loads_nothing_heavy():
    shown = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert "text.join_chars=200" in shown.stdout and "(characters, 0 to 280)" in shown.stdout
    assert "voice=builtin|narrator" in shown.stdout
    assert shown.stdout.rstrip().endswith("[]") and shown.stderr == ""


def test_a_bug_keeps_its_traceback(monkeypatch, tmp_path, story):
    code = (
        "import jobs.generate as g, jobs.cli as c\n"
        "def broken(config, stop): raise ZeroDivisionError('a bug')\n"
        "c.main('generate', g.GenerateConfig, broken)"
    )
    ended = subprocess.run([sys.executable, "-c", code, "book=x"], capture_output=True, text=True)
    assert ended.returncode == 1 and "Traceback" in ended.stderr and "ZeroDivisionError: a bug" in ended.stderr
