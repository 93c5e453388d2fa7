"""The stand-ins' text tokenizer: byte-pair merges learned from a list of common words. Knows nothing of models.

Vocabulary size and special tokens are the real one's, and English text gives about as many tokens. Merges differ.
"""

from collections import Counter
from itertools import pairwise

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace

from pipeline.engine.chatterbox.vocabulary import START_TEXT, TEXT_TOKENS, TEXT_VOCABULARY

SPECIAL = sorted(set(TEXT_TOKENS) - {"[START]"}, key=TEXT_TOKENS.get)  # ids 0, 1, 2
LETTERS = "!'(),-./:;?abcdefghijklmnopqrstuvwxyz"
OTHERS = (range(0x22, 0x7F), range(0xA1, 0x100), range(0x250, 0x300), range(0x2010, 0x2020))  # code points

COMMON_WORDS = """
the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one
you were her all she there would their we him been has when who will more no if out so said what up its about into than
them can only other new some could time these two may then do first any my now such like our over man me even most made
after also did many before must through back years where much your way well down should because each just those people
too how little state good very make world still see own men work long get here between both life being under never day
same another know while last might us great old year off come since against go came right used take three himself few
house use during without again place around however home small found thought went say part once general high upon
school every think water something nothing asked looking going things turned began seemed herself heard voice always
head eyes hand face door night room mother father thing moment young woman sir lady dear looked whether already
""".split()


def build_tokenizer() -> Tokenizer:
    """The stand-ins' tokenizer, the same at every call."""
    merges = _learn_merges({word: 1 / rank for rank, word in enumerate(COMMON_WORDS, start=1)})
    words = [*SPECIAL, *LETTERS, *("".join(pair) for pair in merges)]
    others = [chr(point) for points in OTHERS for point in points if chr(point) not in LETTERS]
    words = [*words[:START_TEXT], "[START]", *words[START_TEXT:], *others]
    words += [f"[PLACEHOLDER{number}]" for number in range(TEXT_VOCABULARY - len(words))]
    vocabulary = {word: token for token, word in enumerate(words)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in (*SPECIAL, "[START]")])
    return tokenizer


def _learn_merges(frequencies: dict[str, float]) -> list[tuple[str, str]]:
    """Byte-pair encoding (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909). Ties go by the alphabet."""
    words = {tuple(word): frequency for word, frequency in frequencies.items()}
    merges = []
    for _ in range(START_TEXT - len(SPECIAL) - len(LETTERS)):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, frequency in words.items():
            for pair in pairwise(word):
                pairs[pair] += frequency
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {_merge(word, best): frequency for word, frequency in words.items()}
    return merges


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    parts: list[str] = []
    for part in word:
        if parts and (parts[-1], part) == pair:
            parts[-1] += part
        else:
            parts.append(part)
    return tuple(parts)
