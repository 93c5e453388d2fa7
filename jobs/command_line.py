"""The words of a command line, before Hydra reads them: flags, and words that lack their `=`.

Knows nothing of what an option means.
"""

import argparse
import importlib.metadata
import os
import re
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser  # the parser that hydra.main uses

from jobs.answers import known_names, nearest, spelled
from jobs.catalogue import all_options, kind_of
from pipeline.errors import UserError

PRODUCT = "chatterbox-batch"


class FlagParser(argparse.ArgumentParser):
    """Hydra's flags, with an error instead of a page of usage, and with --version of this product."""

    def __init__(self) -> None:
        super().__init__(parents=[get_args_parser()], add_help=False, conflict_handler="resolve")
        self.add_argument("--version", action="store_true")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the options")


def arrange_words(words: Sequence[str], schema: type) -> list[str]:
    """The words with flags first, as Hydra wants them: it takes options on one side of a flag only.

    `UserError` for words that are neither a flag nor NAME=VALUE. --version is printed, and ends the process.
    """
    known = known_names(schema)
    for place, word in enumerate(words):
        if word.startswith("-") and (name := _option_of(word, known)) and not _is_flag(words, place):
            value = word.partition("=")[2] or _value_behind(words, place)
            raise UserError(f"{word}: options have no dashes and want a =; write {_example(name, value, schema)}")
    given, unknown = FlagParser().parse_known_intermixed_args(words)
    if given.version:
        print(f"{PRODUCT} {importlib.metadata.version(PRODUCT)}")
        raise SystemExit(0)
    if unknown:
        raise UserError(_answer_flag(unknown[0], schema))
    if given.config_dir and not os.path.isdir(given.config_dir):
        raise UserError(
            f"--config-dir {given.config_dir}: no such folder; give the one that voice/ and the like are in"
        )
    for word in given.overrides:
        if not word.partition("=")[0] or not ("=" in word or word.startswith("~")):
            raise UserError(_answer_word(words, words.index(word), schema))
    return _flags_first(words, given.overrides)


def _option_of(word: str, known: Sequence[str]) -> str:
    """The option that is meant by `--option-name` or `--option-name=value`; empty: none."""
    name = word.lstrip("-").partition("=")[0].replace("-", "_")
    return name if name in known else ""


def _is_flag(words: Sequence[str], place: int) -> bool:
    """Hydra has a flag --run, and jobs.audit an option of that name."""
    return words[place] == "--run" and not _value_behind(words, place)


def _value_behind(words: Sequence[str], place: int) -> str:
    """The next word, if it stands alone as a value does."""
    behind = words[place + 1] if place + 1 < len(words) else ""
    return "" if "=" in behind or behind.startswith("-") else behind


def _example(name: str, value: str, schema: type) -> str:
    """What to type; `value` may be empty."""
    field = dict(all_options(schema)).get(name)
    return spelled(name, value or ("true" if field and kind_of(field) == "true or false" else "VALUE"))


def _answer_flag(flag: str, schema: type) -> str:
    name, _, value = flag.lstrip("-").partition("=")
    near = nearest(name.replace("-", "_"), known_names(schema))
    meant = f"did you mean {_example(near, value, schema)}?" if near else "options are NAME=VALUE, without dashes;"
    return f"there is no flag {flag.partition('=')[0]}; {meant} --help lists all"


def _answer_word(words: Sequence[str], place: int, schema: type) -> str:
    """What to say of a word without NAME=, by its neighbours."""
    known, word = known_names(schema), words[place]
    before, behind = (words[place - 1] if place else ""), words[place + 1 : place + 3]
    for typed in ([before, word], [word, *behind[:1]], [word, *behind]):
        name, _, value = "".join(typed).partition("=")
        if name in known and value and typed[0] in (name, f"{name}="):
            return f"{' '.join(typed)}: no spaces around the =; write {spelled(name, value)}"
    if word in known:
        typed = [word, *filter(None, [_value_behind(words, place)])]
        return f"{' '.join(typed)}: the = is missing; write {_example(word, ''.join(typed[1:]), schema)}"
    if (found := re.fullmatch(r"([\w.]+):(.+)", word)) and found[1] in known:
        return f"{word}: the = is missing; write {spelled(found[1], found[2])}"
    if not word:
        return "a word of the command line is empty, as an unset shell variable is; leave it out"
    if "=" in before:
        name, _, start = before.partition("=")
        return f"{before} {word}: a space ends a value; write {spelled(name, f'{start} {word}')}"
    if os.path.exists(word):
        wanted = next((name for name, field in all_options(schema) if field.default == "???"), "book")
        return f"{word} is not NAME=VALUE; write {spelled(wanted, word)}"
    return f"cannot read {word}: it is not NAME=VALUE; --help lists the options"


def _flags_first(words: Sequence[str], overrides: Sequence[str]) -> list[str]:
    flags = list(reversed(words))
    for word in reversed(overrides):
        flags.remove(word)
    return [*reversed(flags), *overrides]
