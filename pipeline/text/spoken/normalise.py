"""Text normalisation: from a book's characters to spoken text. Knows nothing of chapters, sentences or engines.

`normalise` depends on its string alone, so that an edit of a book changes no utterance elsewhere. Its result is a fixed
point of stock Chatterbox's `punc_norm`, because stock's `generate` applies that once more.
"""

import re
import unicodedata
from functools import lru_cache

# One nested level is allowed, as in "[Illustration: [_Copyright 1894._]]". The lengths are bounded, so that a bracket
# without its closing one cannot take in the whole book.
ILLUSTRATION = re.compile(r"\[illustration\b(?:[^\[\]]|\[[^\[\]]{0,200}\]){0,600}\]", re.IGNORECASE)

# Symbols that are read as words.
SYMBOLS = {"&": "and", "@": "at", "§": "section", "°": "degrees", "×": "times", "÷": "divided by"}
READINGS = str.maketrans(
    dict(zip("«»„″‹›‚′`‐‑‒―⸺⸻−", "\"\"\"\"'''''--–———-", strict=True))
    | dict(zip("ﬀ ﬁ ﬂ ﬃ ﬄ ﬅ ﬆ ſ æ Æ œ Œ".split(), "ff fi fl ffi ffl st st s ae Ae oe Oe".split(), strict=True))
    | {symbol: f" {reading} " for symbol, reading in SYMBOLS.items()}
    | dict.fromkeys("~^|\\<>{}•·¶†‡", " ")
)
# Emoji, ornaments, mathematics, private use, unassigned, surrogates.
SILENT_CATEGORIES = {"So", "Sk", "Sm", "Co", "Cn", "Cs"}
SPOKEN_SYMBOLS = set("+=")

CHAPTER_WORDS = "chapter|book|part|volume|act|scene|letter|canto|stave|section"
CHAPTER_NUMERAL = re.compile(rf"\b(?P<word>{CHAPTER_WORDS}) (?P<numeral>[ivxlc]+)\b", re.IGNORECASE)
CHAPTER_TITLE = re.compile(rf"^((?:{CHAPTER_WORDS}) \d+)(?= [\"“‘']?[A-Z])", re.IGNORECASE)
# ASCII only, or İ matches I.
ROMAN = re.compile(r"(?=.)C{0,3}(?:XC|XL|L?X{0,4})(?:IX|IV|V?I{0,4})", re.IGNORECASE | re.ASCII)

# Spelled out, although they have vowels as words do.
ACRONYMS = set(
    "AIDS AKA CEO CIA DIY DOA ESP FAQ FBI GI HIV IOU IQ IRA IRS NASA NATO OPEC POW RAF SOS UFO UK UN UNESCO UNICEF "
    "URL USA USAF USS USSR VIP".split()
)
# Short words in capitals for emphasis. Words of 5 letters or more with a vowel need no list.
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

# The replacements of stock's punc_norm, in its order.
STOCK_PAUSES = [("...", ", "), ("…", ", "), (":", ","), (" - ", ", "), (";", ", "), ("—", "-"), ("–", "-"), (" ,", ",")]
STOCK_QUOTES = str.maketrans("“”‘’", "\"\"''")


@lru_cache(maxsize=1024)  # the segmenter measures the same piece several times
def normalise(text: str) -> str:
    """The spoken text of `text`; "" if no letter or digit is left."""
    text = _replace_characters(ILLUSTRATION.sub(" ", unicodedata.normalize("NFC", text)))
    text = _rewrite_chapter_numbers(_remove_markup(text))
    text = _merge_pauses(CAPITALS_RUN.sub(_lower_capitals, text))
    if not any(char.isalnum() for char in text):
        return ""
    while (again := punc_norm(text)) != text:
        text = again
    return text


def punc_norm(text: str) -> str:
    """The same as stock Chatterbox's `punc_norm`, for text that is not empty."""
    if text[0].islower():
        text = text[0].upper() + text[1:]
    text = " ".join(text.split())
    for old, new in STOCK_PAUSES:
        text = text.replace(old, new)
    text = text.translate(STOCK_QUOTES).rstrip(" ")
    return text if text.endswith((".", "!", "?", "-", ",")) else text + "."


def _replace_characters(text: str) -> str:
    text = text.translate(READINGS)
    if not (text.isascii() and text.isprintable()):
        text = "".join(map(_replace_silent, text))
    return " ".join(text.split())


def _replace_silent(char: str) -> str:
    category = unicodedata.category(char)
    if char.isspace() or (category in SILENT_CATEGORIES and char not in SPOKEN_SYMBOLS):
        return " "
    return "" if category in ("Cc", "Cf") else char  # control and zero-width characters, soft hyphens, byte-order marks


def _remove_markup(text: str) -> str:
    text = re.sub(r"^#+ ", "", text)
    text = re.sub(r"(\w[.,;:!?\"'”’)]{0,3})\[\d{1,3}\]", r"\1", text)  # a footnote mark
    text = re.sub(r"#(?=\d)", "number ", text)
    text = re.sub(r"(?<=\d) ?\* ?(?=\d)", " times ", text)
    text = re.sub(r"(?<=[^\W_]) ?= ?(?=[^\W_])", " equals ", text)
    text = re.sub(r"(?<=[^\W_])_+(?=[^\W_])", " ", text)  # snake_case becomes two words; elsewhere _ is emphasis
    text = re.sub(r"[*_#=]+", "", text)
    text = re.sub(r"[\[\]]", " ", text)  # the model's tokenizer takes "[sigh]" for a command
    return " ".join(text.split())


def _rewrite_chapter_numbers(text: str) -> str:
    """Write "CHAPTER XII" as "CHAPTER 12", and put a full stop between a heading's number and its title."""
    text = CHAPTER_NUMERAL.sub(_rewrite_numeral, text)
    return CHAPTER_TITLE.sub(lambda match: f"{match[1]}.", text)


def _rewrite_numeral(match: re.Match[str]) -> str:
    word, numeral = match["word"], match["numeral"]
    if not ROMAN.fullmatch(numeral):
        return match[0]
    if len(numeral) == 1:  # a number in "Part I." and "Part I The Sea", none in "the part I play" and "Section C"
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
    run = CAPITALS_WORD.sub(lambda word: _lower_capitals_word(word[0], shouted), match[0])
    if SENTENCE_START.search(match.string, max(0, match.start() - 8), match.start()):
        return run[0].upper() + run[1:]
    return run


def _lower_capitals_word(word: str, shouted: bool) -> str:
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


def _merge_pauses(text: str) -> str:
    """Merge each run of dashes, ellipses and commas, so that stock's `punc_norm` makes one pause of it."""
    text = re.sub(r"(?<=\d):(?=\d)", " ", text)
    text = re.sub(r"-{2,}|—(?: ?—)+", "—", text)
    text = re.sub(r"\.(?: ?\.)+|…+", "…", text)
    text = re.sub(r" ?… ?(?=[.,;:!?—])|[.,;:](?=…)", "", text)
    text = re.sub(r" ?[,;:] ?[—–] ?| [—–-] ", ", ", text)
    text = re.sub(r"[;…](?=[\"”'’])", ",", text)
    text = re.sub(r"(?<=[,;:…])(?: ?[,;:…])+", "", text)
    text = re.sub(r"^([\"“‘'(]*)(?:[\s,;:.!?…—–]|-(?!\d))+", r"\1", text)
    return text.strip()
