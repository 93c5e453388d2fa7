"""Speech tokens to mels: the encoder's word, then Euler steps through the estimator with classifier-free guidance.

Utterances of any lengths go through packs of a few sizes; on CUDA, but in FP32, a step of a pack is one captured graph.
The state on the way is FP32 whatever the weights are. Knows nothing of waveforms or requests.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from chatterbox.models.s3gen.flow import CausalMaskedDiffWithXvec
from torch import Tensor

from pipeline.engine.chatterbox.compiled import captured
from pipeline.engine.chatterbox.device import sent
from pipeline.engine.chatterbox.precision import WEIGHTS, float32_math
from pipeline.engine.chatterbox.s3gen import plain
from pipeline.engine.chatterbox.s3gen.encoder import Encoder, encode, fuse_encoder
from pipeline.engine.chatterbox.s3gen.estimator import estimate, operations
from pipeline.engine.chatterbox.s3gen.noise import FLOW, normal
from pipeline.engine.chatterbox.s3gen.pack import SHORTEST, Pack, make_pack
from pipeline.engine.chatterbox.s3gen.weights import Estimator, fuse
from pipeline.engine.chatterbox.shelf import Shelf
from pipeline.voice import Conditionals

MEL = 80  # channels
SIZES = (1024, 4096, 16384, 32768)  # frames of a captured pack, prompts included
OTHER_SIZES = dict(cuda=(1024, 4096, 8192))  # of those that are not captured; a CPU gains nothing from company
FRAME_BYTES = {2: 104_000, 4: 206_000}  # of a pack, at most, by the bytes of a number; measured
ROUND = dict(cuda=32)  # tokens to which the encoder's rows are padded, so that attention finds aligned memory


@dataclass(frozen=True)
class Solver:
    """Each `step` moves `state` (size, 80) float32 a `length` () of the way, told `known` (2 * size, 240)."""

    pack: Pack
    state: Tensor
    known: Tensor
    shifts: Tensor  # (stages, 256) of the time
    length: Tensor
    step: Callable[[], None]


@dataclass(frozen=True)
class Weights:
    encoder: Encoder
    estimator: Estimator
    speaker: tuple[Tensor, Tensor]  # float32
    lengths: Tensor  # (steps,) float32
    shifts: Tensor  # (steps, stages, 256)


class Flow:
    """Stock's flow in one number format; `stock`, in FP32, is only read."""

    def __init__(self, stock: CausalMaskedDiffWithXvec, device: torch.device, number_format: str, steps: int) -> None:
        dtype = WEIGHTS[number_format]
        self.device, self.number_format = device, number_format
        lengths, shifts = way(stock, steps)
        weights = Weights(
            encoder=fuse_encoder(stock, device, dtype),
            estimator=fuse(stock.decoder.estimator, device, dtype),
            speaker=(stock.spk_embed_affine_layer.weight.to(device), stock.spk_embed_affine_layer.bias.to(device)),
            lengths=lengths.to(device),
            shifts=shifts.to(device, dtype),
        )
        self.shelf = Shelf(weights, device)
        self._guidance = stock.decoder.inference_cfg_rate
        self._solvers: dict[int, Solver] = {}  # by size

    @property
    def weights(self) -> Weights:
        return self.shelf.get()

    def put_away(self) -> None:
        """Leave the device until weights are wanted again."""
        self.forget()  # captured packs read weights where they are
        self.shelf.put_away()

    def in_use(self) -> str:
        """What it is made of, read from what it works with."""
        module = operations(self.device, self.number_format).__name__.rpartition(".")[2]
        dtype = str(self.shelf.look().estimator.dtype).removeprefix("torch.")
        graphs = "a step as a CUDA graph" if self._captures else "no graphs"
        return f"{dtype} weights, attention of {module}, {graphs}"

    @torch.inference_mode()
    def __call__(self, tokens: Sequence[Tensor], seeds: Sequence[int], voice: Conditionals) -> list[Tensor]:
        """tokens (num_tokens,) int64 each, on the CPU; mels (80, frames) float32 of them, on the device"""
        with float32_math(self.number_format):
            told = self._encode(tokens, voice)  # (2 * tokens of prompt and utterance, 80) each
            lengths = [len(one) for one in told]
            solver = self._solver(lengths)
            spans = solver.pack.spans[: len(tokens)]
            noise = normal(sent(torch.tensor(seeds), self.device), FLOW, max(lengths) * MEL).view(len(seeds), -1, MEL)
            prompt = voice.prompt_feat[0].to(self.device)  # (frames, 80)
            speaker = F.linear(F.normalize(voice.embedding.to(self.device), dim=1), *self.weights.speaker)  # (1, 80)
            solver.state.zero_()
            solver.known.zero_()
            for (begin, end), row, one in zip(spans, noise, told, strict=True):
                solver.state[begin:end] = row[: end - begin]
                solver.known[begin:end, :MEL] = one
                solver.known[begin:end, MEL : 2 * MEL] = speaker
                solver.known[begin : begin + len(prompt), 2 * MEL :] = prompt
        for shifts, length in zip(self.weights.shifts, self.weights.lengths, strict=True):
            solver.shifts.copy_(shifts)
            solver.length.copy_(length)
            solver.step()  # the device takes no more than some steps in advance, so others may go on meanwhile
        return [solver.state[begin + len(prompt) : end].T.clone() for begin, end in spans]

    def forget(self) -> None:
        """The memory of all captured packs is free again."""
        self._solvers.clear()

    def _encode(self, tokens: Sequence[Tensor], voice: Conditionals) -> list[Tensor]:
        prompt = voice.prompt_token[0].to(self.device)
        lengths = [len(prompt) + len(one) for one in tokens]
        multiple = ROUND.get(self.device.type, 1)
        padded = torch.zeros(len(tokens), -(-max(lengths) // multiple) * multiple, dtype=torch.int64)
        for row, one in zip(padded, tokens, strict=True):
            row[len(prompt) : len(prompt) + len(one)] = one
        padded = sent(padded, self.device)
        padded[:, : len(prompt)] = prompt
        made = encode(self.weights.encoder, padded, sent(torch.tensor(lengths), self.device))
        return [row[: 2 * length] for row, length in zip(made, lengths, strict=True)]

    @property
    def _captures(self) -> bool:
        return operations(self.device, self.number_format) is not plain

    def _solver(self, lengths: Sequence[int]) -> Solver:
        """One for a pack of these, captured where a GPU can."""
        if not self._captures:
            return self._make_solver(make_pack(lengths, max(sum(lengths), SHORTEST * len(lengths)), self.device))
        wanted = max(sum(lengths), SHORTEST * len(lengths))
        size = next((size for size in SIZES if size >= wanted), wanted)
        pack = make_pack(lengths, size, self.device)
        if size not in self._solvers:
            made = self._make_solver(pack)
            self._solvers[size] = replace(made, step=captured(made.step, self.device))
        solver = self._solvers[size]
        solver.pack.position.copy_(pack.position)
        solver.pack.blocks.copy_(pack.blocks)
        return replace(solver, pack=pack)

    def _make_solver(self, pack: Pack) -> Solver:
        weights, size = self.weights, len(pack.position) // 2
        dtype = weights.estimator.dtype
        state, length = torch.zeros(size, MEL, device=self.device), torch.zeros((), device=self.device)
        known = torch.zeros(2 * size, 3 * MEL, device=self.device, dtype=dtype)  # the second half: nothing is known
        shifts = torch.zeros_like(weights.shifts[0])

        def step() -> None:
            with float32_math(self.number_format):
                seen = torch.cat([state.to(dtype).repeat(2, 1), known], dim=1)  # (2 * size, 320)
                toward, anywhere = estimate(weights.estimator, seen, shifts, pack, self.number_format).float().chunk(2)
                state.addcmul_(toward + self._guidance * (toward - anywhere), length)

        return Solver(pack, state, known, shifts, length, step)


def frames(num_tokens: int, voice: Conditionals) -> int:
    """What an utterance takes of a pack."""
    return max(2 * (num_tokens + voice.prompt_token.shape[1]), SHORTEST)


def best_size(device: torch.device, number_format: str, memory: int) -> int:
    """How many frames, prompts included, are best carried at once in so many bytes."""
    captures = operations(device, number_format) is not plain
    sizes = SIZES if captures else OTHER_SIZES.get(device.type, (1,))
    most = memory // FRAME_BYTES[WEIGHTS[number_format].itemsize]
    return max((size for size in sizes if size <= most), default=sizes[0])


@torch.inference_mode()
def way(stock: CausalMaskedDiffWithXvec, steps: int) -> tuple[Tensor, Tensor]:
    """Each step's length (steps,) on the way from 0 to 1, and what it adds in each stage (steps, stages, 256)."""
    estimator = stock.decoder.estimator
    times = 1 - torch.cos(torch.linspace(0, 1, steps + 1) * (0.5 * math.pi))
    embedded = F.mish(estimator.time_mlp(estimator.time_embeddings(times[:-1])))  # (steps, 1024)
    stages = (*estimator.down_blocks, *estimator.mid_blocks, *estimator.up_blocks)
    return times.diff(), torch.stack([stage[0].mlp[1](embedded) for stage in stages], dim=1)
