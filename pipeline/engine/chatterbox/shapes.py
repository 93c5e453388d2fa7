"""The names and shapes of all tensors in the three weight files. Knows neither files nor values.

`shapes.json` lists them as `stock.describe` finds them in chatterbox-tts 0.1.7. There, `#` stands for the number of a
block. Blocks of a stack are alike, and smaller checkpoints have fewer.
"""

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

COMPUTED = frozenset({"tokenizer._mel_filters", "tokenizer.window"})  # stock computes them when a file lacks them
TABLE = Path(__file__).with_name("shapes.json")


@dataclass(frozen=True)
class TensorKind:
    shape: tuple[int, ...]
    is_float: bool


def expected_tensors(file: str, names: Collection[str] = (), depth: int | None = None) -> dict[str, TensorKind]:
    """The tensors of a file, by name. Stacks are as deep as in `names`, and `depth` at most.

    A stack of which `names` has nothing is whole.
    """
    table, found = _read_table()[file], _find_blocks(names)

    def count(stack: str, whole: int) -> int:
        return min(len(found[stack]) if stack in found else whole, whole, whole if depth is None else depth)

    expected = {}
    for pattern, (shape, is_float) in table["tensors"].items():
        begin, *parts = pattern.split("#")
        there, stack = [begin], ""
        for part in parts:
            stack += begin
            whole = table["stacks"][stack.removesuffix(".")]
            there = [f"{name}{block}{part}" for name in there for block in range(count(name.removesuffix("."), whole))]
            stack, begin = f"{stack}#", part
        expected |= dict.fromkeys(there, TensorKind(tuple(shape), is_float))
    return expected


@cache
def _read_table() -> dict:
    return json.loads(TABLE.read_text())


def _find_blocks(names: Collection[str]) -> dict[str, set[str]]:
    """The block numbers that `names` have, by their stack's name."""
    found = defaultdict(set)
    for name in names:
        parts = name.split(".")
        for place, part in enumerate(parts):
            if part.isdecimal():
                found[".".join(parts[:place])].add(part)
    return found
