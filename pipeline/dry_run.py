"""The plan as text, for `dry_run=true`. Knows nothing of engines or run folders."""

from collections import Counter
from collections.abc import Sequence

from pipeline.config import GenerateConfig
from pipeline.data import NO_IDENTITY, SAMPLE_RATE
from pipeline.plan import Planned, choose, make_plan, parameters
from pipeline.text import Book
from pipeline.text.reader import read_book
from pipeline.text.segment import segment

NUM_LONGEST = 5  # utterances in the list of the longest


def dry_run(config: GenerateConfig) -> str:
    """The plan of a job as text, made without an engine. `UserError` if the book cannot be read."""
    book = read_book(config.book)
    params = parameters(NO_IDENTITY, config)
    planned = make_plan(segment(book, config.text), params, config.plan.chars_per_second)
    chosen = choose(planned, config.chapters, config.limit, config.shard, config.num_shards)
    return describe_plan(book, chosen)


def describe_plan(book: Book, chosen: Sequence[Planned]) -> str:
    """Chapters, unspoken spans, predicted hours, disk space, and the longest utterances."""
    seconds = sum(item.predicted_s for item in chosen)
    lines = [f"{book.name}: {len(book.chapters)} chapters, {len(book.text):,} characters", ""]
    lines += [f"{'chapter':>7} {'utterances':>10} {'minutes':>8}  title"]
    counts: Counter[int] = Counter(item.utterance.chapter for item in chosen)
    lengths: Counter[int] = Counter()
    for item in chosen:
        lengths[item.utterance.chapter] += item.predicted_s
    for chapter in book.chapters:
        minutes = lengths[chapter.number] / 60
        lines += [f"{chapter.number:>7} {counts[chapter.number]:>10} {minutes:>8.1f}  {chapter.title}"]
    lines += ["", f"not spoken: {len(book.unspoken)} place(s)"]
    lines += [
        f"  at {span.start}: {span.reason}: {_excerpt(book.text[span.start : span.end])}" for span in book.unspoken
    ]
    lines += ["", f"chosen: {len(chosen)} utterances, {seconds / 3600:.2f} hours predicted"]
    lines += [f"disk: {seconds * SAMPLE_RATE * 2 / 2**30:.2f} GiB"]
    lines += ["", "longest:"]
    for item in sorted(chosen, key=lambda item: -item.predicted_s)[:NUM_LONGEST]:
        lines += [f"  {item.utterance.id} {item.predicted_s:5.1f} s  {_excerpt(item.utterance.text)}"]
    return "\n".join(lines)


def _excerpt(text: str, width: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
