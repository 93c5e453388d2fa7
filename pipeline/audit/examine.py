"""The whole audit, in the order in which one damage may account for what the next check would find.

Knows no engine, option or network.
"""

from pathlib import Path

from pipeline.audit.book import check_plan
from pipeline.audit.chosen import find_chosen, read_asked
from pipeline.audit.finding import Finding, Kind, Report
from pipeline.audit.missing import find_missing
from pipeline.audit.strangers import find_strangers
from pipeline.audit.tables import check_tables
from pipeline.audit.wavs import Detector, check_wavs, sample
from pipeline.plan import Planned
from pipeline.store import RunFolder
from pipeline.store.finished import DamagedRun, FinishedRun, open_run


def examine(folder: RunFolder, detect: Detector, share: str, whole: bool = False) -> Report:
    """Check everything. `share` of the watermarks is looked for: all, sample or none.

    What is missing is measured against what the folder's runs were asked for, or against the `whole` book.
    `UserError` if there is no run in the folder, or if the disk refuses to read it.
    """
    asked, broken = read_asked(folder)
    try:
        run = open_run(folder.root)
    except DamagedRun as error:
        path = error.cause.path
        return Report([Finding(Kind.PLAN, path.name, f"({error.cause.why})", _unless_file(path)), *broken])
    findings = [*broken, *check_plan(run.snapshot)]
    spoken, rowless = _sort(run, _told(findings))
    listened = sample(len(spoken), share) if run.snapshot.params["watermark"] else set()
    ok, audio_s = 0, 0.0
    for row, wrong in check_wavs(run, spoken, listened, detect):
        if wrong:
            findings.append(wrong)
        else:
            ok, audio_s = ok + 1, audio_s + (row["duration"] or 0.0)
    findings += find_missing(run, rowless, find_chosen(run, asked, whole), {one.journal for one in asked})
    told = _told(findings)
    findings += check_tables(run, told)
    findings += find_strangers(run, {item.utterance.id for item in spoken}, told)
    unchosen = sum(item.utterance.id not in told for item in rowless)
    planned, failed = len(run.snapshot.planned), list(run.rows("failed"))
    return Report(findings, failed, planned, ok, unchosen, audio_s, len(listened))


def _sort(run: FinishedRun, told: set[str]) -> tuple[list[Planned], list[Planned]]:
    """Utterances that were spoken by what their last row says, and those that have no row for their key.

    Not those that failed, nor those whose place in the plan is wrong itself.
    """
    items = [item for item in run.snapshot.planned if item.utterance.id not in told]
    with_row = [item for item in items if run.index.has_row(item)]
    rowless = [item for item in items if not run.index.has_row(item)]
    return [item for item in with_row if run.index[item.utterance.id].status == "ok"], rowless


def _told(findings: list[Finding]) -> set[str]:
    return {id for finding in findings for id in finding.explains}


def _unless_file(path: Path) -> Path | None:
    """What is in a file's place and is none can only be moved aside."""
    return None if path.is_file() else path
