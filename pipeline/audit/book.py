"""The plan against the book's text, and each key against text and options. Knows nothing of what was rendered."""

from collections import Counter
from collections.abc import Iterator

from pipeline.audit.finding import Finding, Kind
from pipeline.plan import key_of
from pipeline.store.plan_snapshot import PlanSnapshot


def check_plan(snapshot: PlanSnapshot) -> Iterator[Finding]:
    """At most one finding an utterance: one whose text is wrong has the wrong key, too."""
    wrong = list(_check_text(snapshot))
    yield from wrong
    told = {finding.thing for finding in wrong}
    yield from (finding for finding in _check_keys(snapshot) if finding.thing not in told)


def _check_text(snapshot: PlanSnapshot) -> Iterator[Finding]:
    """Every character that is not white space is in one utterance or one span left out on purpose, in order."""
    left = list(snapshot.text)
    for span in snapshot.unspoken:
        left[span.start : span.end] = " " * (span.end - span.start)
    places: Counter[int] = Counter()
    behind, all_well = 0, True
    for item in snapshot.planned:
        said, wrong = item.utterance, ""
        if said.char_start < behind:
            wrong = f"begins at {said.char_start}, before the one in front of it ends"
        elif said.text.split() != "".join(left[said.char_start : said.char_end]).split():
            wrong = f"is not what the book says at {said.char_start}"
        elif said.index != places[said.chapter]:
            wrong = f"has index {said.index} where chapter {said.chapter} goes on with {places[said.chapter]}"
        if wrong:
            all_well = False
            yield Finding(Kind.TEXT, said.id, wrong, explains=[said.id])
        places[said.chapter] = said.index + 1
        behind = said.char_end
        left[said.char_start : said.char_end] = " " * (said.char_end - said.char_start)
    if all_well and (rest := "".join(left).split()):
        where = f"at {snapshot.text.index(rest[0])}: {' '.join(rest)[:60]}"
        yield Finding(Kind.TEXT, "book.txt", f"has text in no utterance and no unspoken span, {where}")


def _check_keys(snapshot: PlanSnapshot) -> Iterator[Finding]:
    seen: Counter[str] = Counter()
    for item in snapshot.planned:
        text = item.utterance.spoken_text
        if item.key != key_of(snapshot.params, text, seen[text]):
            yield Finding(Kind.KEY, item.utterance.id, "has another key", explains=[item.utterance.id])
        seen[text] += 1
