"""Files of a run's folder that belong to no utterance of the plan. Knows nothing of what is in them."""

from collections.abc import Collection, Iterator

from pipeline.audit.finding import Finding, Kind
from pipeline.durable import TEMPORARY
from pipeline.store.finished import FinishedRun
from pipeline.store.reuse import find_held


def find_strangers(run: FinishedRun, spoken: Collection[str], told: Collection[str]) -> Iterator[Finding]:
    """`spoken`: ids of utterances that have a WAV. `told`: ids of those against which something was found."""
    folder, index = run.folder, run.index
    held, known = find_held(folder), set()
    for item in run.snapshot.planned:
        said = item.utterance
        if said.id in spoken or said.id in told:
            known.add(folder.wav(said))
        if item.key in index.spoken and (item.key in held or said.id in told):  # being taken over when a job was killed
            known.add(folder.root / index.spoken[item.key].file_name)
    for path in sorted((folder.root / "wavs").rglob("*")):
        if path.is_dir() or path.name.endswith(TEMPORARY) or not known.isdisjoint((path, *path.parents)):
            continue
        kind = Kind.SUPERSEDED if path.stem in index else Kind.STRANGER
        yield Finding(kind, path.relative_to(folder.root).as_posix(), "", path)
    locks = ("run.lock", "merge.lock")
    for path in sorted((folder.root / "journal").glob("*")):
        if path.name not in locks and path.suffix not in (".jsonl", TEMPORARY):
            yield Finding(Kind.STRANGER, path.relative_to(folder.root).as_posix(), "", path)
    yield from _check_reuse(run, told)
    for path in folder.leftovers():
        yield Finding(Kind.LEFTOVER, path.relative_to(folder.root).as_posix(), "", path)


def _check_reuse(run: FinishedRun, told: Collection[str]) -> Iterator[Finding]:
    """Speech that waits for its utterance is told with the utterance."""
    reuse = run.folder.reuse
    if reuse.is_symlink() or (reuse.exists() and not reuse.is_dir()):
        yield Finding(Kind.STRANGER, reuse.name, "is in the way of the folder of that name", reuse)
    ids = {item.key: item.utterance.id for item in run.snapshot.planned}
    for key, path in sorted(find_held(run.folder).items()):
        kind = Kind.LEFTOVER if key in ids else Kind.SUPERSEDED
        if ids.get(key) not in told:
            yield Finding(kind, path.relative_to(run.folder.root).as_posix(), "", path)
