"""From a `Book` to its utterances, with the pause after each. Knows nothing of voices or engines.

No text is lost: a chapter's utterances are its headings and prose, in order.
"""

from collections.abc import Callable, Iterator

from pipeline.config import TextConfig
from pipeline.data import Utterance
from pipeline.text import Book, Chapter, Paragraph, ParagraphKind
from pipeline.text.segment.divide import Passage, divide, make_plain
from pipeline.text.segment.sentences import Span, make_sentence_splitter
from pipeline.text.spoken.normalise import normalise


def segment(book: Book, options: TextConfig) -> list[Utterance]:
    """Cut the whole book into utterances, in reading order."""
    prose = [
        paragraph
        for chapter in book.chapters
        for paragraph in chapter.paragraphs
        if paragraph.kind is ParagraphKind.PROSE
    ]
    find_sentences = make_sentence_splitter(
        [make_plain(book.text[paragraph.start : paragraph.end]) for paragraph in prose]
    )
    return [
        utterance for chapter in book.chapters for utterance in _cut_chapter(book, chapter, find_sentences, options)
    ]


def _cut_chapter(
    book: Book, chapter: Chapter, find_sentences: Callable[[str], list[Span]], options: TextConfig
) -> Iterator[Utterance]:
    index = 0
    for number, paragraph in enumerate(chapter.paragraphs):
        if paragraph.kind is ParagraphKind.SCENE_BREAK:
            continue
        passage = _make_passage(book, paragraph, find_sentences)
        pieces, ends = divide(passage, options.join_chars), set(passage.ends)
        for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
            if following is None:
                pause = _pause_after_paragraph(chapter, number, options)
            else:
                pause = options.pause_sentence_s if following[0] in ends else options.pause_clause_s
            text = passage.text_of(piece)
            yield Utterance(
                id=f"{book.name}-{chapter.number:03d}-{index:05d}",
                book=book.name,
                chapter=chapter.number,
                chapter_title=chapter.title,
                index=index,
                paragraph=number,
                char_start=paragraph.start + piece[0],
                char_end=paragraph.start + piece[1],
                text=text,
                spoken_text=normalise(text),
                pause_after_s=pause,
            )
            index += 1


def _make_passage(book: Book, paragraph: Paragraph, find_sentences: Callable[[str], list[Span]]) -> Passage:
    text = book.text[paragraph.start : paragraph.end]
    flat = make_plain(text)
    ends = [len(flat)] if paragraph.kind is ParagraphKind.HEADING else [end for _, end in find_sentences(flat)]
    return Passage(text, flat, ends)


def _pause_after_paragraph(chapter: Chapter, number: int, options: TextConfig) -> float:
    """Seconds: the longest of the pauses that apply after this paragraph."""
    is_heading = chapter.paragraphs[number].kind is ParagraphKind.HEADING
    pauses = [options.pause_heading_s if is_heading else options.pause_paragraph_s]
    following = [paragraph.kind for paragraph in chapter.paragraphs[number + 1 : number + 3]]
    if following[:1] == [ParagraphKind.SCENE_BREAK]:
        pauses.append(options.pause_scene_s)
    if all(kind is ParagraphKind.SCENE_BREAK for kind in following):
        pauses.append(options.pause_chapter_s)
    return max(pauses)
