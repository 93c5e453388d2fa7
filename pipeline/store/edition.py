"""The edition: a book's text and plan as last rendered, kept in the run's folder. Knows nothing of speech or journals.

`book.txt` is what offsets count in, `plan.parquet` what should be there: the manifest is made by it, and the audit
needs nothing else to tell what is missing.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from pipeline.book import Unspoken, Utterance
from pipeline.errors import UserError
from pipeline.plan import Planned
from pipeline.store import RunFolder, write_durably

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Edition:
    """A book as one configuration speaks it."""

    source: str  # the book's path, as it was when it was read
    text: str
    unspoken: tuple[Unspoken, ...]
    planned: Sequence[Planned]  # the whole book, in reading order
    speaker: str
    params: dict[str, Any]  # what enters every key

    @cached_property
    def digest(self) -> str:
        """Equal for two processes that agree on every row of the manifest and on every sample."""
        facts = (self.text, self.unspoken, tuple(self.planned), self.speaker)
        return hashlib.sha256(repr(facts).encode(errors="surrogatepass")).hexdigest()


def write_edition(folder: RunFolder, edition: Edition) -> None:
    """Keep `edition` in place of the one before; `UserError` if that was of another book."""
    before = read_edition(folder)
    if before is None or before.digest != edition.digest:
        _refuse_another_book(folder, before, edition)
        write_durably(folder.book, lambda temporary: temporary.write_bytes(edition.text.encode()))
        write_durably(folder.plan, lambda temporary: _write_plan(temporary, edition))


def read_edition(folder: RunFolder) -> Edition | None:
    """The edition in `folder`; None if there is none, or not a whole one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(folder.plan)
        facts = json.loads(table.schema.metadata[b"edition"])
        data = folder.book.read_bytes()
        if hashlib.sha256(data).hexdigest() != facts.pop("text_sha256"):
            raise ValueError(f"{folder.book.name} is of another edition")
        facts["unspoken"] = tuple(Unspoken(**span) for span in facts["unspoken"])
        return Edition(text=data.decode(), planned=[_planned(row) for row in table.to_pylist()], **facts)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        log.warning("%s cannot be read: %s", folder.plan, error)
        return None


def _refuse_another_book(folder: RunFolder, before: Edition | None, edition: Edition) -> None:
    """Two books of the same name would overwrite each other; one book that was moved is still the same."""
    if before is None or before.source == edition.source:
        return
    texts = {item.utterance.id: item.utterance.spoken_text for item in edition.planned}
    kept = sum(texts.get(item.utterance.id) == item.utterance.spoken_text for item in before.planned)
    if kept * 2 < len(before.planned):
        raise UserError(f"out={folder.root} holds the speech of {before.source}; choose another out=")


def _write_plan(path: Any, edition: Edition) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    facts = dict(
        source=edition.source,
        text_sha256=hashlib.sha256(edition.text.encode()).hexdigest(),
        unspoken=[asdict(span) for span in edition.unspoken],
        speaker=edition.speaker,
        params=edition.params,
    )
    rows = [asdict(item.utterance) | dict(key=item.key, seed=item.seed, predicted_s=item.predicted_s)
            for item in edition.planned]  # fmt: skip
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"edition": json.dumps(facts)})
    pq.write_table(table, path, compression="zstd")


def _planned(row: dict[str, Any]) -> Planned:
    utterance = Utterance(**{field.name: row.pop(field.name) for field in fields(Utterance)})
    return Planned(utterance, **row)
