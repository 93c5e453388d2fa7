"""Speech tokens to mels: mu from the encoder, then Euler steps through the estimator with CFG.

Utterances of any lengths go through packs of a few sizes. On CUDA, except in FP32, a step of a pack is one captured
graph. The solver's state is FP32 whatever the weights are. Knows nothing of waveforms or requests.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.device.devices import to_device
from pipeline.device.dtypes import DTYPES, float32_math
from pipeline.device.graphs import capture
from pipeline.device.offload import Offloaded
from pipeline.device.padding import PaddingMeter
from pipeline.device.random import normal
from pipeline.engine.chatterbox.s3gen import plain
from pipeline.engine.chatterbox.s3gen.encoder import Encoder, encode, fuse_encoder
from pipeline.engine.chatterbox.s3gen.estimator import choose_flow_ops, estimate
from pipeline.engine.chatterbox.s3gen.pack import SHORTEST, Pack, make_pack
from pipeline.engine.chatterbox.s3gen.streams import FLOW
from pipeline.engine.chatterbox.s3gen.weights import Estimator, fuse
from pipeline.engine.chatterbox.saved import SavedTensors
from pipeline.engine.chatterbox.tuning import get_tuning
from pipeline.engine.chatterbox.voice import Conditionals

MEL = 80  # channels
CFG_RATE = 0.7
TIME_WIDTH, TIME_SCALE = 320, 1000  # of the embedded time
FRAME_BYTES = {2: 104_000, 4: 206_000}  # peak memory of a pack per frame, by the bytes of a number; measured


@dataclass(frozen=True)
class Solver:
    """A pack's Euler solver. `step()` adds dt times the estimator's velocity to `state`."""

    pack: Pack
    state: Tensor  # (size, 80) float32
    conditions: Tensor  # (2 * size, 240): mu, speaker, prompt; the second half is unconditional: zeros
    shifts: Tensor  # (stages, 256), the step's time embeddings
    dt: Tensor  # (), float32
    step: Callable[[], None]


@dataclass(frozen=True)
class FlowWeights:
    encoder: Encoder
    estimator: Estimator
    speaker: tuple[Tensor, Tensor]  # weight and bias, float32
    dt: Tensor  # (steps,) float32
    shifts: Tensor  # (steps, stages, 256), time embeddings


class Flow:
    """Stock's flow in one number format. `saved` are the tensors of `flow`."""

    def __init__(
        self,
        saved: SavedTensors,
        device: torch.device,
        number_format: str,
        steps: int,
        meter: PaddingMeter | None = None,
    ) -> None:
        dtype = DTYPES[number_format]
        self.device, self.number_format = device, number_format
        self._meter = meter or PaddingMeter()
        estimator = saved.under("decoder.estimator")
        dt, shifts = make_schedule(estimator, steps)
        weights = FlowWeights(
            encoder=fuse_encoder(saved, device, dtype),
            estimator=fuse(estimator, device, dtype),
            speaker=_pair(saved, "spk_embed_affine_layer", device),
            dt=dt.to(device),
            shifts=shifts.to(device, dtype),
        )
        self.offloaded = Offloaded(weights, device)
        self._solvers: dict[int, Solver] = {}  # by size

    @property
    def weights(self) -> FlowWeights:
        return self.offloaded.get()

    def offload(self) -> None:
        """Move the weights off the device; the next use moves them back."""
        self.forget()  # captured graphs read the weights at their addresses
        self.offloaded.offload()

    def in_use(self) -> str:
        """What it runs with, read from its weights and operations."""
        module = choose_flow_ops(self.device, self.number_format).__name__.rpartition(".")[2]
        dtype = str(self.offloaded.look().estimator.dtype).removeprefix("torch.")
        graphs = "a step as a CUDA graph" if self._captures else "no graphs"
        return f"{dtype} weights, attention of {module}, {graphs}"

    @torch.inference_mode()
    def __call__(self, tokens: Sequence[Tensor], seeds: Sequence[int], voice: Conditionals) -> list[Tensor]:
        """Mels (80, frames) float32 on the device, of tokens (num_tokens,) int64 each, on the CPU."""
        with float32_math(self.number_format):
            mus = self._encode(tokens, voice)
            lengths = [len(mu) for mu in mus]
            solver = self._prepare_solver(lengths)
            self._meter.add("flow packs", sum(lengths), len(solver.state))
            spans = solver.pack.spans[: len(tokens)]
            noise = normal(to_device(torch.tensor(seeds), self.device), FLOW, max(lengths) * MEL).view(
                len(seeds), -1, MEL
            )
            prompt = voice.prompt_feat[0].to(self.device)  # (frames, 80)
            speaker = F.linear(F.normalize(voice.embedding.to(self.device), dim=1), *self.weights.speaker)  # (1, 80)
            solver.state.zero_()
            solver.conditions.zero_()
            for (begin, end), row, mu in zip(spans, noise, mus, strict=True):
                solver.state[begin:end] = row[: end - begin]
                solver.conditions[begin:end, :MEL] = mu
                solver.conditions[begin:end, MEL : 2 * MEL] = speaker
                solver.conditions[begin : begin + len(prompt), 2 * MEL :] = prompt
        # Outside of the lock of `float32_math`: while a full CUDA queue blocks here, other threads may go on.
        for shifts, dt in zip(self.weights.shifts, self.weights.dt, strict=True):
            solver.shifts.copy_(shifts)
            solver.dt.copy_(dt)
            solver.step()
        return [solver.state[begin + len(prompt) : end].T.clone() for begin, end in spans]

    def forget(self) -> None:
        """Free the memory of all captured packs."""
        self._solvers.clear()

    def _encode(self, tokens: Sequence[Tensor], voice: Conditionals) -> list[Tensor]:
        """mu of prompt and utterance, (2 * tokens of both, 80) each."""
        prompt = voice.prompt_token[0].to(self.device)
        lengths = [len(prompt) + len(one) for one in tokens]
        multiple = get_tuning(self.device).encoder_multiple
        padded = torch.zeros(len(tokens), -(-max(lengths) // multiple) * multiple, dtype=torch.int64)
        for row, one in zip(padded, tokens, strict=True):
            row[len(prompt) : len(prompt) + len(one)] = one
        self._meter.add("encoder rows", sum(lengths), padded.numel())
        padded = to_device(padded, self.device)
        padded[:, : len(prompt)] = prompt
        mus = encode(self.weights.encoder, padded, to_device(torch.tensor(lengths), self.device))
        return [row[: 2 * length] for row, length in zip(mus, lengths, strict=True)]

    @property
    def _captures(self) -> bool:
        return choose_flow_ops(self.device, self.number_format) is not plain

    def _prepare_solver(self, lengths: Sequence[int]) -> Solver:
        """A solver for a pack of sequences of these lengths; its step is a captured graph where `_captures`."""
        if not self._captures:
            return self._make_solver(make_pack(lengths, max(sum(lengths), SHORTEST * len(lengths)), self.device))
        wanted = max(sum(lengths), SHORTEST * len(lengths))
        size = next((size for size in get_tuning(self.device).captured_frames if size >= wanted), wanted)
        pack = make_pack(lengths, size, self.device)
        if size not in self._solvers:
            uncaptured = self._make_solver(pack)
            self._solvers[size] = replace(uncaptured, step=capture(uncaptured.step, self.device))
        solver = self._solvers[size]
        solver.pack.position.copy_(pack.position)
        solver.pack.blocks.copy_(pack.blocks)
        return replace(solver, pack=pack)

    def _make_solver(self, pack: Pack) -> Solver:
        weights, size = self.weights, len(pack.position) // 2
        dtype = weights.estimator.dtype
        state, dt = torch.zeros(size, MEL, device=self.device), torch.zeros((), device=self.device)
        conditions = torch.zeros(2 * size, 3 * MEL, device=self.device, dtype=dtype)  # second half: unconditional
        shifts = torch.zeros_like(weights.shifts[0])

        def step() -> None:
            with float32_math(self.number_format):
                x = torch.cat([state.to(dtype).repeat(2, 1), conditions], dim=1)  # (2 * size, 320)
                velocity = estimate(weights.estimator, x, shifts, pack, self.number_format).float()
                conditional, unconditional = velocity.chunk(2)
                state.addcmul_(conditional + CFG_RATE * (conditional - unconditional), dt)

        return Solver(pack, state, conditions, shifts, dt, step)


def pack_frames(num_tokens: int, voice: Conditionals) -> int:
    """Frames that an utterance takes of a pack, its voice's prompt included."""
    return max(2 * (num_tokens + voice.prompt_token.shape[1]), SHORTEST)


def best_size(device: torch.device, number_format: str, memory: int) -> int:
    """The best number of frames in a pack, prompts included, that takes at most `memory` bytes."""
    captures = choose_flow_ops(device, number_format) is not plain
    tuning = get_tuning(device)
    sizes = tuning.captured_frames if captures else tuning.plain_frames
    most = memory // FRAME_BYTES[DTYPES[number_format].itemsize]
    return max((size for size in sizes if size <= most), default=sizes[0])


@torch.inference_mode()
def make_schedule(estimator: SavedTensors, steps: int) -> tuple[Tensor, Tensor]:
    """Euler's dt (steps,) from time 0 to 1, cosine schedule, and each stage's time embeddings (steps, stages, 256)."""
    t_span = 1 - torch.cos(torch.linspace(0, 1, steps + 1) * (0.5 * math.pi))
    half = TIME_WIDTH // 2
    rate = torch.exp(torch.arange(half).float() * -(math.log(10_000) / (half - 1)))
    angle = TIME_SCALE * t_span[:-1, None] * rate  # (steps, 160)
    hidden = F.linear(torch.cat([angle.sin(), angle.cos()], dim=1), *_pair(estimator, "time_mlp.linear_1"))
    embedded = F.mish(F.linear(F.silu(hidden), *_pair(estimator, "time_mlp.linear_2")))  # (steps, 1024)
    stages = [stage for name in ("down_blocks", "mid_blocks", "up_blocks") for stage in estimator.blocks(name)]
    return t_span.diff(), torch.stack([F.linear(embedded, *_pair(stage, "0.mlp.1")) for stage in stages], dim=1)


def _pair(saved: SavedTensors, name: str, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Weight and bias, float32."""
    return saved[f"{name}.weight"].to(device).float(), saved[f"{name}.bias"].to(device).float()
