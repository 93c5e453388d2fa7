"""The stock modules of chatterbox-tts 0.1.7, built and loaded fast. Knows nothing of requests or caches.

How deep each stack of equal blocks is, is read from the file, so smaller checkpoints of the same architecture load too.
"""

import logging
import re
import warnings
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode

from pipeline.voice import Conditionals

with warnings.catch_warnings():  # deprecations of stock's own dependencies
    warnings.simplefilter("ignore")
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3 import t3 as stock_t3
    from chatterbox.models.tokenizers import EnTokenizer
    from chatterbox.models.voice_encoder import VoiceEncoder

T3_FILE, S3GEN_FILE, VOICE_ENCODER_FILE = "t3_cfg.safetensors", "s3gen.safetensors", "ve.safetensors"
MODULES: dict[str, type[nn.Module]] = {T3_FILE: T3, S3GEN_FILE: S3Gen, VOICE_ENCODER_FILE: VoiceEncoder}

COMPUTED = frozenset(S3Gen.ignore_state_dict_missing)  # buffers that stock computes when a file lacks them
STACKS = re.compile(
    r"tfmr\.layers|tokenizer\.encoder\.blocks|flow\.encoder\.(up_)?encoders"
    r"|flow\.decoder\.estimator\.(mid_blocks|(down|mid|up)_blocks\.\d+\.1)"
)

# Stock draws a progress bar an utterance, logs each end token, through the root logger in places, and asks for
# attention weights that it does not use, of which transformers warns.
stock_t3.tqdm = lambda steps, **_: steps
logging.getLogger("chatterbox").setLevel(logging.ERROR)
logging.getLogger("transformers").setLevel(logging.ERROR)
logging.getLogger().addFilter(lambda record: "/chatterbox/models/" not in record.pathname)
warnings.filterwarnings("ignore", message=".*sdp_kernel", category=FutureWarning)


class _NoRandomInit(TorchFunctionMode):
    """Leaves out random initialisation, 13 s of building the stock modules, since a file overwrites it."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("normal_", "uniform_") or name.startswith("kaiming_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def stacks(module: nn.Module) -> dict[str, nn.ModuleList]:
    """Every stack of equal blocks in a stock module, by name."""
    return {name: child for name, child in module.named_modules() if STACKS.fullmatch(name)}


def build(file: str, names: Collection[str] = ()) -> nn.Module:
    """The stock module that loads `file`, its weights arbitrary, its stacks as deep as the tensors `names` tell."""
    with _NoRandomInit(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = MODULES[file]()
    for prefix, stack in stacks(module).items():
        blocks = {name[len(prefix) + 1 :].split(".", 1)[0] for name in names if name.startswith(f"{prefix}.")}
        if blocks:  # else the stack stays whole, and its first block is what the file lacks
            del stack[len(blocks) :]
    return module


def tensors(file: str, names: Collection[str] = (), depth: int | None = None) -> dict[str, torch.Tensor]:
    """The stock module's tensors, its stacks as deep as `names` tell, `depth` at most. They take no memory."""
    with torch.device("meta"):
        module = build(file, names)
    for stack in stacks(module).values():
        del stack[len(stack) if depth is None else depth :]
    return module.state_dict()


def shapes(file: str, depth: int | None = None) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors(file, depth=depth).items()}


def load(file: str, folder: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The stock module with the weights of `folder / file`, ready for inference, its parameters of type `dtype`."""
    weights = load_file(folder / file)
    module = build(file, weights)
    missing = set(module.load_state_dict(weights, strict=False).missing_keys) - COMPUTED
    if missing:
        raise ValueError(f"{folder / file} lacks {min(missing)}")
    for parameter in module.parameters():  # not buffers: BF16 would round the rotary frequencies
        parameter.data = parameter.data.to(device, dtype)
    return module.to(device).eval().requires_grad_(False)


def load_t3(folder: Path, device: torch.device, dtype: torch.dtype) -> T3:
    """With weights of type `dtype`; its logits are FP32 all the same, as sampling needs them."""
    t3 = load(T3_FILE, folder, device, dtype)
    t3.cfg.num_hidden_layers = len(t3.tfmr.layers)
    t3.speech_head.register_forward_hook(_finite_float32)
    return t3


def load_builtin_voice(folder: Path) -> Conditionals:
    with warnings.catch_warnings():  # of how the file was pickled
        warnings.simplefilter("ignore")
        saved = torch.load(folder / "conds.pt", map_location="cpu", weights_only=True)
    both = saved["t3"] | saved["gen"]
    return Conditionals(**{name: both[name] for name in Conditionals.__dataclass_fields__})


class Models:
    """A checkpoint's stock modules on one device, each loaded when it is first asked for."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.t3s: dict[torch.dtype, T3] = {}  # by the type of the weights

    def t3(self, dtype: torch.dtype) -> T3:
        """Text to speech tokens."""
        if dtype not in self.t3s:
            self.t3s[dtype] = load_t3(self.folder, self.device, dtype)
        return self.t3s[dtype]

    @cached_property
    def s3gen(self) -> S3Gen:
        """Speech tokens to samples; holds the speech tokenizer and the x-vector network of voices as well."""
        return load(S3GEN_FILE, self.folder, self.device)

    @cached_property
    def voice_encoder(self) -> VoiceEncoder:
        return load(VOICE_ENCODER_FILE, self.folder, self.device)

    @cached_property
    def tokenizer(self) -> EnTokenizer:
        return EnTokenizer(str(self.folder / "tokenizer.json"))

    @cached_property
    def builtin_voice(self) -> Conditionals:
        return load_builtin_voice(self.folder)

    def in_use(self) -> dict[str, str]:
        """What the loaded modules really are; nothing of those that nobody asked for yet."""
        found = dict(device=str(self.device), torch=torch.__version__)
        if self.device.type == "cuda":
            found["gpu"] = torch.cuda.get_device_name(self.device)
        if self.t3s:
            found["t3"] = ", ".join(sorted({_dtypes(t3) for t3 in self.t3s.values()}))
            found["attention"] = next(iter(self.t3s.values())).tfmr.config._attn_implementation
        if s3gen := vars(self).get("s3gen"):
            found |= dict(flow=_dtypes(s3gen.flow), vocoder=_dtypes(s3gen.mel2wav))
        return found


def _dtypes(module: nn.Module) -> str:
    return "/".join(sorted({str(parameter.dtype).removeprefix("torch.") for parameter in module.parameters()}))


def _finite_float32(module: nn.Module, args: tuple, logits: torch.Tensor) -> torch.Tensor:
    """Sampling from NaN would end in a device-side assert, which no later request on that GPU survives."""
    if not logits.isfinite().all():
        raise FloatingPointError("T3's logits are not finite")
    return logits.float()  # (B, T, 8194)
