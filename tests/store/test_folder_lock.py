"""Who may write to a run's folder."""

import pytest

from pipeline.errors import UserError
from pipeline.store import RunFolder
from pipeline.store.folder_lock import lock_exclusive, lock_shared

CUT = dict(num_shards=2)


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    made = RunFolder(tmp_path)
    made.create()
    return made


def test_the_first_one_prepares_and_the_others_join(folder):
    prepared = []
    with lock_shared(folder, "plan", CUT, lambda: prepared.append(1)):
        with lock_shared(folder, "plan", CUT, lambda: prepared.append(2)):
            pass
        with pytest.raises(UserError, match="another edition"), lock_shared(folder, "other", CUT, lambda: None):
            pass
        with pytest.raises(UserError, match="a job is rendering"), lock_exclusive(folder):
            pass
    assert prepared == [1]


def test_one_that_dies_while_it_prepares_leaves_nothing_that_the_next_could_take_for_its_own(folder):
    with lock_shared(folder, "plan", CUT, lambda: None):
        pass

    def die():
        raise SystemExit(9)

    with pytest.raises(SystemExit), lock_shared(folder, "edited", CUT, die):
        pass
    assert folder.lock.read_text() == ""
    prepared = []
    with lock_shared(folder, "plan", CUT, lambda: prepared.append(1)):
        assert prepared == [1]
