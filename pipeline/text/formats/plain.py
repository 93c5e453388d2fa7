"""Decodes a plain text file. An error names what the file is and how to convert it. Knows nothing of books."""

import re
import shlex
from pathlib import Path

from pipeline.errors import UserError

MAGIC = (
    (b"%PDF-", "a PDF document"),
    (b"{\\rtf", "an RTF document"),
    (b"\xd0\xcf\x11\xe0", "an old Word document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x7fELF", "a program"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"RIFF", "a RIFF recording"),
    (b"ID3", "an MP3 recording"),
    (b"fLaC", "a FLAC recording"),
    (b"OggS", "an Ogg recording"),
)
ZIPPED = ((b"application/epub+zip", "an EPUB book"), (b"word/document.xml", "a Word document (DOCX)"))
BYTE_ORDER_MARKS = (  # the longer marks first: UTF-32LE's begins with UTF-16LE's
    (b"\xff\xfe\0\0", "UTF-32LE"),
    (b"\0\0\xfe\xff", "UTF-32BE"),
    (b"\xff\xfe", "UTF-16LE"),
    (b"\xfe\xff", "UTF-16BE"),
)
MARKUP = re.compile(r"\s*(?:<!--(?>.*?-->)\s*)*<(?:!doctype\b|html\b|head\b|body\b|\?xml\b)", re.IGNORECASE | re.DOTALL)
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x19\x7f]")


def read_text(path: Path) -> str:
    """The file's text without its byte-order mark; line ends are kept. `UserError` if it is not UTF-8 text."""
    data = _read_bytes(path)
    if what := _binary_format(data):
        raise UserError(f"{path}: this is {what}; only plain text is read for now: convert it to UTF-8 text first")
    if encoding := _wide_encoding(data):
        raise UserError(_not_utf8(path, data, 0 if data[0] > 0x7F else data.index(0), encoding))
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(_not_utf8(path, data, error.start, _likely_encoding(data))) from None
    if MARKUP.match(text):
        raise UserError(f"{path}: this is HTML or XML; only plain text is read for now: convert it to text first")
    if not text.strip():
        raise UserError(f"{path}: the file is empty; give a text file with a book in it")
    return text


def _read_bytes(path: Path) -> bytes:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # reading it might never end
            raise UserError(f"{path}: this is a pipe or a device; save the text as a file and give that")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a text file with book=") from None
    except IsADirectoryError:
        raise UserError(f"{path}: this is a folder; give one text file in it") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it; allow it with chmod +r") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; check the path") from None


def _binary_format(data: bytes) -> str | None:
    """The name of a known binary format, found by its first bytes or by NUL bytes; None for text."""
    if data[:2] == b"PK":
        for mark, what in ZIPPED:
            if mark in data:
                return what
    for magic, what in MAGIC:
        if data.startswith(magic):
            return what
    if data[60:68] == b"BOOKMOBI":
        return "a Kindle book"
    if b"\0" in data and not _wide_encoding(data):
        return f"a binary file (NUL byte at offset {data.index(0)})"
    return None


def _wide_encoding(data: bytes) -> str | None:
    """The name of UTF-16 or UTF-32, found by the byte-order mark; None for other encodings.

    Without a mark, UTF-16 is found by its NULs: in text with ASCII spaces they are mostly the same byte of each pair.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding
    high, low = data[0::2].count(0), data[1::2].count(0)
    if min(high, low) * 20 >= max(high, low):
        return None
    encoding = "UTF-16LE" if low > high else "UTF-16BE"
    text = data.decode(encoding, "replace")
    return None if "\ufffd" in text or CONTROLS.search(text) else encoding


def _likely_encoding(data: bytes) -> str | None:
    lenient = data.decode("utf-8", "replace")
    if CONTROLS.search(lenient):
        return None
    bad = lenient.count("\ufffd")
    if sum(char > "\x7f" for char in lenient) - bad > bad:
        return "UTF-8"
    return max(("CP1252", "MACINTOSH"), key=lambda encoding: _plausibility(data, encoding))


def _plausibility(data: bytes, encoding: str) -> int:
    """How many non-ASCII characters are common in English prose: lower-case letters, quotes, dashes."""
    text = data.decode("mac_roman" if encoding == "MACINTOSH" else encoding, "replace")
    return sum(char.islower() or char in "“”‘’–—…£" for char in text if char > "\x7f")


def _not_utf8(path: Path, data: bytes, offset: int, encoding: str | None) -> str:
    name = shlex.quote(str(path))
    if encoding is None:
        way_out = "nor does it look like other text: give a UTF-8 text file"
    elif encoding == "UTF-8":
        way_out = (
            f"the rest is, so the file is damaged: find a better copy, or iconv -c -f UTF-8 -t UTF-8 {name} > fixed.txt"
        )
    else:
        way_out = f"the file looks like {encoding}: iconv -f {encoding} -t UTF-8 {name} > utf8.txt"
    return f"{path}: not UTF-8 (byte 0x{data[offset]:02x} at offset {offset}); {way_out}"
