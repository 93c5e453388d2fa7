"""The stock modules of chatterbox-tts 0.1.7, built and loaded fast. Knows nothing of requests or caches.

How deep each stack of equal blocks is, is read from the file, so smaller checkpoints of the same architecture load too.
"""

import logging
import re
import warnings
from collections.abc import Collection
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode

from pipeline.config import Precision
from pipeline.engine.chatterbox.device import freed
from pipeline.engine.chatterbox.precision import WEIGHTS
from pipeline.engine.chatterbox.shelf import Shelf, num_bytes
from pipeline.engine.chatterbox.shelf import tensors as tensors_in
from pipeline.voice import Conditionals

with warnings.catch_warnings():  # deprecations of stock's own dependencies
    warnings.simplefilter("ignore")
    from chatterbox.models.s3gen import S3Gen
    from chatterbox.models.t3 import T3
    from chatterbox.models.t3 import t3 as stock_t3
    from chatterbox.models.tokenizers import EnTokenizer
    from chatterbox.models.voice_encoder import VoiceEncoder

    from pipeline.engine.chatterbox.s3gen.flow import Flow
    from pipeline.engine.chatterbox.s3gen.vocoder import Vocoder
    from pipeline.engine.chatterbox.t3.weights import Weights as T3Weights
    from pipeline.engine.chatterbox.t3.weights import fuse

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
    return dict(_tensors(file, frozenset(names), depth))


@lru_cache(maxsize=8)  # building a module takes half a second
def _tensors(file: str, names: frozenset[str], depth: int | None) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        module = build(file, names)
    for stack in stacks(module).values():
        del stack[len(stack) if depth is None else depth :]
    return module.state_dict()


def shapes(file: str, depth: int | None = None) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors(file, depth=depth).items()}


def load(file: str, folder: Path, device: torch.device, as_saved: bool = False) -> nn.Module:
    """The stock module with the weights of `folder / file`, ready for inference: in FP32, or `as_saved`.

    On a CPU they are the file's own bytes, mapped, and take no memory until they are read.
    """
    weights = load_file(folder / file)
    if not as_saved:
        weights = {name: one.float() if one.is_floating_point() else one for name, one in weights.items()}
    module = build(file, weights)
    missing = set(module.load_state_dict(weights, strict=False, assign=True).missing_keys) - COMPUTED
    if missing:
        raise ValueError(f"{folder / file} lacks {min(missing)}")
    return module.to(device).eval().requires_grad_(False)


def load_t3(folder: Path, device: torch.device) -> T3:
    """Stock's own decoder: the reference of the engine's, which never runs it."""
    t3 = load(T3_FILE, folder, device)
    t3.cfg.num_hidden_layers = len(t3.tfmr.layers)
    return t3


def load_builtin_voice(folder: Path) -> Conditionals:
    with warnings.catch_warnings():  # of how the file was pickled
        warnings.simplefilter("ignore")
        saved = torch.load(folder / "conds.pt", map_location="cpu", weights_only=True)
    both = saved["t3"] | saved["gen"]
    return Conditionals(**{name: both[name] for name in Conditionals.__dataclass_fields__})


def verify(what: str, weights: Any, dtype: torch.dtype) -> None:
    """RuntimeError if weights are in another number format than was asked for."""
    found = {tensor.dtype for tensor in tensors_in(weights)}
    if found != {dtype}:
        raise RuntimeError(f"the weights of {what} are {found} where {dtype} was wanted")


class Models:
    """A checkpoint on one device, each part loaded when it is first asked for."""

    def __init__(self, folder: Path, device: torch.device, flow_steps: int) -> None:
        self.folder, self.device, self._flow_steps = folder, device, flow_steps
        self.t3s: dict[torch.dtype, Shelf[T3Weights]] = {}
        self.flows: dict[str, Flow] = {}  # by number format
        self.vocoders: dict[torch.dtype, Vocoder] = {}

    def t3(self, dtype: torch.dtype) -> T3Weights:
        """Text to speech tokens: what the engine's own decoder works with."""
        if dtype not in self.t3s:
            stock = load(T3_FILE, self.folder, torch.device("cpu"), as_saved=True)
            fused = fuse(stock, self.device, dtype)
            verify("T3", fused.layers, dtype)
            self.t3s[dtype] = Shelf(fused, self.device)
        return self.t3s[dtype].get()

    def flow(self, number_format: str) -> Flow:
        """Speech tokens to mels."""
        if number_format not in self.flows:
            flow = Flow(self.s3gen.flow, self.device, number_format, self._flow_steps)
            verify("the flow", (flow.weights.encoder, flow.weights.estimator), WEIGHTS[number_format])
            self.flows[number_format] = flow
        return self.flows[number_format]

    def load_waveforms(self, precision: Precision) -> None:
        """Whatever makes tokens speech, if it is not there yet."""
        self.flow(precision.flow), self.vocoder(precision.vocoder), self.fade

    def keep_only(self, precision: Precision) -> None:
        """Free what another precision needs."""
        self.t3s = {dtype: one for dtype, one in self.t3s.items() if dtype == WEIGHTS[precision.t3]}
        self.flows = {name: one for name, one in self.flows.items() if name == precision.flow}
        self.vocoders = {dtype: one for dtype, one in self.vocoders.items() if dtype == WEIGHTS[precision.vocoder]}

    def num_bytes(self) -> int:
        """Of all weights that speech is made by, as they are loaded."""
        shelves = [*self.t3s.values(), *(one.shelf for one in (*self.flows.values(), *self.vocoders.values()))]
        return sum(num_bytes(shelf.look()) for shelf in shelves)

    def put_t3_away(self) -> None:
        for shelf in self.t3s.values():
            shelf.put_away()
        freed(self.device)

    def put_waveforms_away(self) -> None:
        for one in (*self.flows.values(), *self.vocoders.values()):
            one.put_away()
        freed(self.device)

    def vocoder(self, number_format: str) -> Vocoder:
        """Mels to samples."""
        dtype = WEIGHTS[number_format]
        if dtype not in self.vocoders:
            vocoder = Vocoder(self.s3gen.mel2wav, self.device, dtype)
            verify("the vocoder", (vocoder.weights.pre, vocoder.weights.post), dtype)
            self.vocoders[dtype] = vocoder
        return self.vocoders[dtype]

    @cached_property
    def fade(self) -> torch.Tensor:
        """What stock multiplies the first samples by. (960,) float32"""
        return self.s3gen.trim_fade.to(self.device)

    @cached_property
    def s3gen(self) -> S3Gen:
        """Stock's module on the CPU, of which flow and vocoder are made."""
        return load(S3GEN_FILE, self.folder, torch.device("cpu"))

    def voice_modules(self) -> tuple[S3Gen, VoiceEncoder]:
        """Stock's modules on the device, of which voices are made; nobody keeps them."""
        return load(S3GEN_FILE, self.folder, self.device), load(VOICE_ENCODER_FILE, self.folder, self.device)

    @cached_property
    def tokenizer(self) -> EnTokenizer:
        return EnTokenizer(str(self.folder / "tokenizer.json"))

    @cached_property
    def builtin_voice(self) -> Conditionals:
        return load_builtin_voice(self.folder)

    def in_use(self) -> dict[str, str]:
        """What is loaded really is; nothing of what nobody asked for yet."""
        found = dict(device=str(self.device), torch=torch.__version__)
        if self.device.type == "cuda":
            found["gpu"] = torch.cuda.get_device_name(self.device)
        flows = list(self.flows.items())  # the thread of waveforms may add to them meanwhile
        found |= {f"flow {number_format}": flow.in_use() for number_format, flow in flows}
        if dtypes := list(self.vocoders):
            found["vocoder"] = f"{'/'.join(str(dtype).removeprefix('torch.') for dtype in dtypes)} weights"
        return found
