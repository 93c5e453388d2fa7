"""An audit's report in words: each kind of damage with a count and a list of its own. Knows nothing of files."""

from collections.abc import Iterator, Sequence

from pipeline.audit.finding import Finding, Kind, Report


def describe(report: Report, most: int = 20) -> str:
    """The report, the worst first; each list names `most` things and says how many more there are."""
    lines = []
    if report.planned:
        counts = f"planned {report.planned}, ok {report.ok}, failed {len(report.failed)}"
        lines += [f"{counts}; {report.audio_s / 3600:.2f} hours; watermarks looked for: {report.watermarks}"]
    for kind in Kind:
        found = [finding for finding in report.findings if finding.kind is kind]
        if found:
            lines += [f"WRONG: {kind.title}: {len(found)} ({kind.cure})"]
            lines += _listed([_sentence(finding) for finding in found], most)
    if report.failed:
        lines += [f"failed: {len(report.failed)} (see failed.parquet)"]
        lines += _listed([f"{row['id']}: {row['error']}: {row['text']}" for row in report.failed], most)
    if report.unchosen:
        lines += [f"{report.unchosen} utterance(s) of the book were not chosen; whole=true asks for them, too"]
    return "\n".join(lines)


def _listed(sentences: Sequence[str], most: int) -> Iterator[str]:
    yield from (f"  {sentence}" for sentence in sentences[:most])
    if len(sentences) > most:
        yield f"  … and {len(sentences) - most} more"


def _sentence(finding: Finding) -> str:
    return f"{finding.thing} {finding.detail}".rstrip()
