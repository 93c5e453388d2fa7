"""From the book's characters to exactly what the model is given. Knows nothing of chapters, sentences or engines.

`spoken` depends on nothing but its string, so that a change elsewhere in a book changes no other utterance. Its result
is a fixed point of stock Chatterbox's `punc_norm`, which stock's `generate` applies once more.
"""

import re
import unicodedata
from functools import lru_cache

# One level of brackets inside, as in "[Illustration: [_Copyright 1894._]]"; bounded, so that a bracket that is never
# closed cannot swallow the book.
ILLUSTRATION = re.compile(r"\[illustration\b(?:[^\[\]]|\[[^\[\]]{0,200}\]){0,600}\]", re.IGNORECASE)

# Characters with a reading of their own.
SYMBOLS = {"&": "and", "@": "at", "§": "section", "°": "degrees", "×": "times", "÷": "divided by"}
READINGS = str.maketrans(
    dict(zip("«»„″‹›‚′`‐‑‒―⸺⸻−", "\"\"\"\"'''''--–———-", strict=True))
    | dict(zip("ﬀ ﬁ ﬂ ﬃ ﬄ ﬅ ﬆ ſ æ Æ œ Œ".split(), "ff fi fl ffi ffl st st s ae Ae oe Oe".split(), strict=True))
    | {symbol: f" {reading} " for symbol, reading in SYMBOLS.items()}
    | dict.fromkeys("~^|\\<>{}•·¶†‡", " ")
)
SILENT_CATEGORIES = {"So", "Sk", "Sm", "Co", "Cn", "Cs"}  # emoji, ornaments, mathematics, private and broken ones
SPOKEN_SYMBOLS = set("+=")

CHAPTER_WORDS = "chapter|book|part|volume|act|scene|letter|canto|stave|section"
CHAPTER_NUMERAL = re.compile(rf"\b(?P<word>{CHAPTER_WORDS}) (?P<numeral>[ivxlc]+)\b", re.IGNORECASE)
CHAPTER_TITLE = re.compile(rf"^((?:{CHAPTER_WORDS}) \d+)(?= [\"“‘']?[A-Z])", re.IGNORECASE)
ROMAN = re.compile(r"(?=.)C{0,3}(?:XC|XL|L?X{0,4})(?:IX|IV|V?I{0,4})", re.IGNORECASE | re.ASCII)  # else İ is an I

# Not words, in spite of their vowels.
ACRONYMS = set(
    "AIDS AKA CEO CIA DIY DOA ESP FAQ FBI GI HIV IOU IQ IRA IRS NASA NATO OPEC POW RAF SOS UFO UK UN UNESCO UNICEF "
    "URL USA USAF USS USSR VIP".split()
)
# Words that are also shouted alone; longer ones need no list.
EMPHATIC = set(
    "ALL AN AND ANY ARE AS AT BE BOY BUT BY CAN DAY DID DIE DO END EVER FOR FROM GET GIRL GO GOD GOOD HAD HAS HAVE HE "
    "HELP HER HERE HIM HIS HOW IF IN IS IT ITS JUST KING LET LIKE LOVE MAN ME MUST MY NEED NEVER NEW NO NOT NOW OF OFF "
    "OH OLD ON ONE OR OUR OUT OVER OWN PAGE REAL RUN SAID SAW SAY SEE SHE SO SOUP STOP SUCH TAKE TELL THAN THAT THE "
    "THEM THEN THEY THIS TIME TO TOO TRUE TWO UP VERY WANT WAS WAY WE WELL WENT WERE WHAT WHEN WHY WILL WITH YES YET "
    "YOU YOUR".split()
)
CAPITALS = r"[^\W\d_a-zß-öø-ÿ]+(?:['’][^\W\d_a-zß-öø-ÿ]+)*"
CAPITALS_RUN = re.compile(rf"(?<!\w){CAPITALS}(?:[\s,-]+{CAPITALS})*(?!\w)")
CAPITALS_WORD = re.compile(CAPITALS)
SENTENCE_START = re.compile(r"(?:^|[.!?…]['\"’”]*\s)['\"‘“(]*$")

# Stock's punc_norm, in its order.
STOCK_PAUSES = [("...", ", "), ("…", ", "), (":", ","), (" - ", ", "), (";", ", "), ("—", "-"), ("–", "-"), (" ,", ",")]
STOCK_QUOTES = str.maketrans("“”‘’", "\"\"''")


@lru_cache(maxsize=1024)  # the segmenter weighs the same piece several times
def spoken(text: str) -> str:
    """What the model is given for `text`; "" when no letter or digit is left to speak."""
    text = _characters(ILLUSTRATION.sub(" ", unicodedata.normalize("NFC", text)))
    text = _chapter_numbers(_markup(text))
    text = _pauses(CAPITALS_RUN.sub(_lower_capitals, text))
    if not any(char.isalnum() for char in text):
        return ""
    while (again := punc_norm(text)) != text:
        text = again
    return text


def punc_norm(text: str) -> str:
    """Stock Chatterbox's function of this name, for text that is not empty."""
    if text[0].islower():
        text = text[0].upper() + text[1:]
    text = " ".join(text.split())
    for old, new in STOCK_PAUSES:
        text = text.replace(old, new)
    text = text.translate(STOCK_QUOTES).rstrip(" ")
    return text if text.endswith((".", "!", "?", "-", ",")) else text + "."


def _characters(text: str) -> str:
    text = text.translate(READINGS)
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_audible, text))
    return " ".join(text.split())


def _audible(char: str) -> str:
    category = unicodedata.category(char)
    if char.isspace() or (category in SILENT_CATEGORIES and char not in SPOKEN_SYMBOLS):
        return " "
    return "" if category in ("Cc", "Cf") else char  # controls, zero-width characters, soft hyphens, BOMs


def _markup(text: str) -> str:
    text = re.sub(r"^#+ ", "", text)
    text = re.sub(r"(\w[.,;:!?\"'”’)]{0,3})\[\d{1,3}\]", r"\1", text)  # a footnote's mark
    text = re.sub(r"#(?=\d)", "number ", text)
    text = re.sub(r"(?<=\d) ?\* ?(?=\d)", " times ", text)
    text = re.sub(r"(?<=[^\W_]) ?= ?(?=[^\W_])", " equals ", text)
    text = re.sub(r"(?<=[^\W_])_+(?=[^\W_])", " ", text)  # snake_case is two words; at a word's edge it is emphasis
    text = re.sub(r"[*_#=]+", "", text)
    text = re.sub(r"[\[\]]", " ", text)  # the model's tokenizer takes "[sigh]" for a command
    return " ".join(text.split())


def _chapter_numbers(text: str) -> str:
    """ "CHAPTER XII." to "Chapter 12.", and a stop between a heading's number and its title."""
    text = CHAPTER_NUMERAL.sub(_chapter_number, text)
    return CHAPTER_TITLE.sub(lambda match: f"{match[1]}.", text)


def _chapter_number(match: re.Match[str]) -> str:
    word, numeral = match["word"], match["numeral"]
    if not ROMAN.fullmatch(numeral):
        return match[0]
    if len(numeral) == 1:  # "Part I." and "Part I The Sea" have numbers; "the part I play" and "Section C" do not
        rest = match.string[match.end() : match.end() + 3]
        titled = match.start() == 0 and re.match(r" [\"“‘']?[A-Z]", rest)
        if numeral not in "IVX" or word[0].islower() or not (titled or re.match(r"[.:,;)!?—–]|$", rest)):
            return match[0]
    return f"{word} {roman_value(numeral)}"


def roman_value(numeral: str) -> int:
    values = [dict(I=1, V=5, X=10, L=50, C=100)[char] for char in numeral.upper()]
    return sum(
        -value if value < following else value for value, following in zip(values, [*values[1:], 0], strict=True)
    )


def _lower_capitals(match: re.Match[str]) -> str:
    words = [word for word in CAPITALS_WORD.findall(match[0]) if word.isupper()]
    shouted = len(words) > 1 and any(len(word) > 1 for word in words)
    run = CAPITALS_WORD.sub(lambda word: _lower_word(word[0], shouted), match[0])
    if SENTENCE_START.search(match.string, max(0, match.start() - 8), match.start()):
        return run[0].upper() + run[1:]
    return run


def _lower_word(word: str, shouted: bool) -> str:
    bare = re.split("['’]", word)[0]
    if bare == "I":
        return "I" + word[1:].lower()
    if bare in ACRONYMS or not word.isupper() or ROMAN.fullmatch(bare):
        return word
    vowel = any(char in "AEIOUY" for char in unicodedata.normalize("NFD", bare))
    if len(word) == 1:
        return word.lower() if shouted and word == "A" else word
    if vowel and (shouted or len(bare) >= 5) or bare in EMPHATIC:
        return word.lower()
    return word


def _pauses(text: str) -> str:
    """Dashes and ellipses that stock's rules read as one pause, whatever stands around them."""
    text = re.sub(r"(?<=\d):(?=\d)", " ", text)
    text = re.sub(r"-{2,}|—(?: ?—)+", "—", text)
    text = re.sub(r"\.(?: ?\.)+|…+", "…", text)
    text = re.sub(r" ?… ?(?=[.,;:!?—])|[.,;:](?=…)", "", text)
    text = re.sub(r" ?[,;:] ?[—–] ?| [—–-] ", ", ", text)
    text = re.sub(r"[;…](?=[\"”'’])", ",", text)
    text = re.sub(r"(?<=[,;:…])(?: ?[,;:…])+", "", text)
    text = re.sub(r"^([\"“‘'(]*)(?:[\s,;:.!?…—–]|-(?!\d))+", r"\1", text)
    return text.strip()
