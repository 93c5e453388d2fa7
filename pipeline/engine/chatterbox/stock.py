"""The stock modules of chatterbox-tts 0.1.7, built and loaded fast. Knows nothing of requests or caches.

They compute conditionals, and are the reference in tests and benchmarks. Nothing else imports them: that takes nine
seconds. The depth of each stack of blocks is read from the file, so smaller checkpoints of the same architecture load
too. `python -m pipeline.engine.chatterbox.stock` prints what `shapes.json` says.
"""

import json
import logging
import re
import warnings
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode

from pipeline.engine.chatterbox.files import S3GEN_FILE, T3_FILE, VOICE_ENCODER_FILE
from pipeline.engine.chatterbox.shapes import COMPUTED

with warnings.catch_warnings():  # deprecations in stock's dependencies
    warnings.simplefilter("ignore")
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3 import t3 as stock_t3
    from chatterbox.models.voice_encoder import VoiceEncoder

MODULES: dict[str, type[nn.Module]] = {T3_FILE: T3, S3GEN_FILE: S3Gen, VOICE_ENCODER_FILE: VoiceEncoder}

STACKS = re.compile(
    r"tfmr\.layers|tokenizer\.encoder\.blocks|flow\.encoder\.(up_)?encoders"
    r"|flow\.decoder\.estimator\.(mid_blocks|(down|mid|up)_blocks\.\d+\.1)"
)


@cache
def silence_stock() -> None:
    """Switch off stock's output for the whole process. `build` calls it before it makes a stock module.

    Stock draws a progress bar for each utterance and logs each end token, partly through the root logger. It requests
    attention weights that it does not use, and transformers warns about that.
    """
    stock_t3.tqdm = lambda steps, **_: steps
    logging.getLogger("chatterbox").setLevel(logging.ERROR)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger().addFilter(lambda record: "/chatterbox/models/" not in record.pathname)
    warnings.filterwarnings("ignore", message=".*sdp_kernel", category=FutureWarning)


class _NoRandomInit(TorchFunctionMode):
    """Skips random initialisation, which takes 13 s for the stock modules and is overwritten from a file."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("normal_", "uniform_") or name.startswith("kaiming_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def stacks(module: nn.Module) -> dict[str, nn.ModuleList]:
    """Every stack of repeated blocks in a stock module, by name."""
    return {name: child for name, child in module.named_modules() if STACKS.fullmatch(name)}


def build(file: str, names: Collection[str] = ()) -> nn.Module:
    """The stock module for `file`, with arbitrary weights. Tensor `names` determine the depth of its stacks."""
    silence_stock()
    with _NoRandomInit(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = MODULES[file]()
    for prefix, stack in stacks(module).items():
        blocks = {name[len(prefix) + 1 :].split(".", 1)[0] for name in names if name.startswith(f"{prefix}.")}
        if blocks:  # none: the stack stays whole, and the check reports its first block as missing
            del stack[len(blocks) :]
    return module


def describe() -> dict[str, dict[str, Any]]:
    """What `shapes.json` has to say: depths of stacks, and each tensor's shape and whether it is of floats."""
    described = {}
    for file in MODULES:
        with torch.device("meta"):
            module = build(file)
        found = stacks(module)
        described[file] = dict(
            stacks={_pattern(name, found): len(stack) for name, stack in found.items()},
            tensors={
                _pattern(name, found): [list(tensor.shape), tensor.is_floating_point()]
                for name, tensor in module.state_dict().items()
            },
        )
    return described


def _pattern(name: str, stacks: Collection[str]) -> str:
    """A name with `#` for the number of each block."""
    parts = name.split(".")
    return ".".join("#" if ".".join(parts[:place]) in stacks else part for place, part in enumerate(parts))


def load(file: str, folder: Path, device: torch.device) -> nn.Module:
    """The stock module with the weights of `folder / file` in FP32, ready for inference.

    On a CPU, weights that are saved in FP32 are mapped from the file. ValueError if one is missing.
    """
    weights = load_file(folder / file)
    weights = {name: one.float() if one.is_floating_point() else one for name, one in weights.items()}
    module = build(file, weights)
    missing = set(module.load_state_dict(weights, strict=False, assign=True).missing_keys) - COMPUTED
    if missing:
        raise ValueError(f"{folder / file} lacks {min(missing)}")
    return module.to(device).eval().requires_grad_(False)


if __name__ == "__main__":
    print(json.dumps(describe()).replace(', "', ',\n"'))
