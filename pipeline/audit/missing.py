"""What of the plan is neither ok nor failed, and why. Knows nothing of tables.

Each utterance has one reason: its speech is there under another id, a journal has lost its row, its WAV has no row, or
a run was asked for it and has not rendered it.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.audit.finding import Finding, Kind
from pipeline.audit.journals import check_journals
from pipeline.plan import Planned
from pipeline.store.finished import FinishedRun
from pipeline.store.reuse import find_reusable


def find_missing(
    run: FinishedRun, rowless: Sequence[Planned], chosen: Collection[str], journals: Iterable[Path]
) -> Iterator[Finding]:
    """Why the utterances of `rowless` have no row for the key that they have now.

    `chosen`: ids of what a run was asked for; the others may be missing. `journals`: files that have to be there.
    """
    waiting = {item.utterance.id: entry.id for item, entry in find_reusable(rowless, run.index, run.folder)}
    for id, other in waiting.items():
        where = f"as {other}" if other != id else "but a job began to replace it"
        yield Finding(Kind.WAITING, id, f"is there, {where}", explains=[id])
    rest = {item.utterance.id: item for item in rowless if item.utterance.id not in waiting}
    unvouched = {id for id, item in rest.items() if id not in run.index and _has_file(run, item)}
    concerned = [item for id, item in rest.items() if id in chosen or id in unvouched]
    lost = check_journals(run, concerned, unvouched, journals)
    yield from lost
    told = {id for finding in lost for id in finding.explains}
    for id, item in rest.items():
        if id in unvouched - told:
            path = run.folder.wav(item.utterance)
            yield Finding(Kind.UNVOUCHED, path.relative_to(run.folder.root).as_posix(), "", path, explains=[id])
        elif id in chosen and id not in told:
            yield Finding(Kind.MISSING, id, _why(run, id), explains=[id])


def _has_file(run: FinishedRun, item: Planned) -> bool:
    return os.path.lexists(run.folder.wav(item.utterance))


def _why(run: FinishedRun, id: str) -> str:
    if id not in run.index:
        return "was never rendered"
    if run.index[id].status == "replaced":
        return "was being rendered when the job ended"
    return "was rendered for another text or other options only"
