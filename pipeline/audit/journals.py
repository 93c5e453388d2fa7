"""Journals that have lost rows, with the utterances that have none for that. Knows nothing of what a row says."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pipeline.audit.finding import Finding, Kind
from pipeline.plan import Planned
from pipeline.store.finished import FinishedRun
from pipeline.store.index import PassedOver


def check_journals(
    run: FinishedRun, rowless: Sequence[Planned], unvouched: Collection[str], needed: Iterable[Path]
) -> list[Finding]:
    """What is wrong with a journal is told only while one of `rowless` may have lost its row by it.

    `rowless`: utterances that should have a row. `unvouched`: ids of those whose WAV is there, so that they had one.
    `needed`: journals that a run record names.
    """
    if not rowless:
        return []
    lines = run.index.lost_rows(rowless)
    damages = {path: fault for path in sorted(set(needed)) if (fault := _fault(path, bool(unvouched)))}
    if unvouched and not lines and not damages:
        lines = run.index.passed_over  # whose ids cannot be trusted either
    for journal, said in _count(lines).items():
        damages[journal] = said
    ids = {item.utterance.id for item in rowless}
    lost = unvouched if all(path.is_file() and path.stat().st_size for path in damages) else ids.difference(run.index)
    findings, left = [], set(lost) - {line.id for line in lines}
    for path, fault in damages.items():
        cost = {line.id for line in lines if line.journal == path and line.id in ids} | left
        left = set()  # told with the first journal: nothing says which one they were in
        findings.append(_finding(run, path, fault, cost))
    return findings


def _fault(path: Path, was_written: bool) -> str:
    """What is wrong with a journal's file. An empty one is as a job leaves it that ends before its first row."""
    if not os.path.lexists(path):
        return "is gone"
    if not path.is_file():
        return "is no file (fix=true moves it aside)"
    return "is empty" if was_written and not path.stat().st_size else ""


def _count(lines: Iterable[PassedOver]) -> dict[Path, str]:
    """By journal, how many of `lines` it has and what is wrong with them."""
    counts: dict[Path, Counter[str]] = {}
    for line in lines:
        counts.setdefault(line.journal, Counter())[line.why] += 1
    return {
        journal: "has " + " and ".join(f"{count} line(s) {why}" for why, count in found.items())
        for journal, found in counts.items()
    }


def _finding(run: FinishedRun, path: Path, fault: str, cost: Collection[str]) -> Finding:
    name = path.relative_to(run.folder.root).as_posix()
    if cost:
        fault += f"; {len(cost)} utterance(s) have no row, from {min(cost)} on"
    return Finding(Kind.JOURNAL, name, fault, None if path.is_file() else path, explains=cost)
