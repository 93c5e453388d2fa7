"""Texts to the ids that T3 reads. Knows no model."""

from pathlib import Path

from tokenizers import Tokenizer

SPACE = "[SPACE]"


class TextTokenizer:
    """Stock's English tokenizer, from its file."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text.replace(" ", SPACE)).ids
