"""Finds sentences with NLTK's Punkt, corrected by a few rules. Knows nothing of utterances.

NLTK's English model is used if it is installed; nothing is downloaded. Otherwise Punkt is trained on the book itself.
"""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise

Span = tuple[int, int]

ABBREVIATIONS = set(
    "adm apr assn aug ave bros co corp dec dept ed edn esq est etc feb fig figs inc jan jr jul ltd mt mts nov oct op "
    "phd pl pt rd sept sr vol vols".split()
)
# These and initials never end a sentence. "I." may.
OPENING = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Messrs|Mme|Mlle|Mons|Dr|Prof|Rev|Revd|St|Ste|Capt|Col|Gen|Lieut|Lt|Maj|Sgt|Sergt|Hon|Gov|Sen|"
    r"[Ee]\.g|[Ii]\.e|[Cc]f|[Vv]iz|[Vv]s)|(?<!\w)[A-HJ-Z])\.$"
)
NUMBER_SIGN = re.compile(r"\b(?:[Nn]os?|pp?|[Vv]ol|[Cc]h)\.$")
LEADING_MARKS = re.compile(r"[\"'(\[\s—–-]*")


def make_sentence_splitter(paragraphs: Sequence[str]) -> Callable[[str], list[Span]]:
    """A function from a paragraph to its sentences' spans. It needs ASCII quotes and spaces: Punkt knows no others."""
    with bare_nltk():
        from nltk.tokenize import punkt as nltk_punkt

        if redos := getattr(nltk_punkt, "redos", None):  # NLTK before 3.10 sets no limit
            redos.DEFAULT_TIMEOUT = None  # 5 s by default, too short for a paragraph of megabytes
        punkt = None
        with suppress(LookupError):
            punkt = nltk_punkt.PunktTokenizer("english")
    if punkt is None:
        params = nltk_punkt.PunktTrainer("\n\n".join(paragraphs)).get_params()
        # Punkt takes words that only occur at sentence ends ("die.", "ill.") for abbreviations.
        inside = {word.lower() for text in paragraphs for word in re.findall(r"(?<![\w.])([\w.]{1,12})\. +[a-z]", text)}
        params.abbrev_types = (params.abbrev_types & inside) | ABBREVIATIONS
        punkt = nltk_punkt.PunktSentenceTokenizer(params)
    return lambda text: _repair(text, list(punkt.span_tokenize(text)))


@contextmanager
def bare_nltk() -> Iterator[None]:
    """Let single modules of NLTK be imported without its packages, which take two seconds (scipy.stats and more).

    Meanwhile empty modules stand for the packages. Whoever imports NLTK later gets all of it.
    """
    if "nltk" in sys.modules:
        yield
        return
    try:
        for name in ("nltk", "nltk.tokenize"):
            sys.modules[name] = importlib.util.module_from_spec(importlib.util.find_spec(name))
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "nltk"]:
            del sys.modules[name]


def _repair(text: str, spans: Sequence[Span]) -> list[Span]:
    """Remove Punkt's wrong sentence ends. The spans that are left cover the whole text."""
    starts = [after for (_, before), (after, _) in pairwise(spans) if _is_boundary(text, before, after)]
    return list(pairwise([0, *starts, len(text)]))


def _is_boundary(text: str, before: int, after: int) -> bool:
    sentence = text[max(0, before - 20) : before]
    start = LEADING_MARKS.match(text, after).end()
    first = text[start : start + 1]
    # "Well!" thought Alice; "Which way?", holding
    if OPENING.search(sentence) or first.islower() or not text[after - 1].isspace():
        return False
    return bool(first) and not (first.isdigit() and NUMBER_SIGN.search(sentence))
