"""Rollbacks in the journal: the safest counts, for the same parameters alone, and no utterance is made of one."""

from contextlib import closing

from pipeline.config import FP32, Precision
from pipeline.run.retry import safest
from pipeline.store import RunFolder
from pipeline.store.index import read_index
from pipeline.store.journal import Journal
from pipeline.store.rollback import read_rollbacks, rollback_row

TF32 = Precision("tf32", "tf32", "tf32", "fp32")
PARAMETERS, OTHERS = dict(seed=0, engine="chatterbox"), dict(seed=1, engine="chatterbox")


def written(tmp_path, *rows) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.create()
    for shard, row in enumerate(rows):
        with closing(Journal(folder.journal(shard, len(rows)), 1)) as journal:
            journal.append(row)
    return folder


def test_the_safest_counts_in_whatever_journal_it_stands(tmp_path):
    folder = written(tmp_path, rollback_row(FP32, PARAMETERS), rollback_row(TF32, PARAMETERS))
    assert safest(read_rollbacks(folder, PARAMETERS)) == FP32


def test_it_holds_for_the_same_voice_weights_and_options_alone(tmp_path):
    folder = written(tmp_path, rollback_row(FP32, OTHERS), rollback_row(TF32, PARAMETERS))
    assert read_rollbacks(folder, PARAMETERS) == [TF32] and read_rollbacks(folder, OTHERS) == [FP32]
    assert read_rollbacks(folder, dict(PARAMETERS, seed=2)) == [] and safest([]) is None


def test_no_utterance_is_made_of_it(tmp_path):
    assert read_index(written(tmp_path, rollback_row(FP32, PARAMETERS))) == {}
