"""Speech tokens to mels: the encoder's word, then Euler steps through the estimator with classifier-free guidance.

Utterances of any lengths go through packs of a few sizes; on CUDA in BF16 all steps of a pack are one captured graph.
The state on the way is FP32 whatever the weights are. Knows nothing of waveforms or requests.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from chatterbox.models.s3gen.flow import CausalMaskedDiffWithXvec
from torch import Tensor

from pipeline.engine.chatterbox.compiled import captured
from pipeline.engine.chatterbox.precision import WEIGHTS, float32_math
from pipeline.engine.chatterbox.s3gen import plain
from pipeline.engine.chatterbox.s3gen.encoder import encode, fuse_encoder
from pipeline.engine.chatterbox.s3gen.estimator import estimate, operations
from pipeline.engine.chatterbox.s3gen.noise import FLOW, normal
from pipeline.engine.chatterbox.s3gen.pack import SHORTEST, Pack, make_pack
from pipeline.engine.chatterbox.s3gen.weights import fuse
from pipeline.voice import Conditionals

MEL = 80  # channels
SIZES = (1024, 4096, 16384, 32768)  # frames of a captured pack, prompts included
OTHER_SIZE = dict(cuda=8192)  # of those that are not captured
ROUND = dict(cuda=32)  # tokens to which the encoder's rows are padded, so that attention finds aligned memory


@dataclass(frozen=True)
class Solver:
    """Carries `state` (size, 80) float32 from noise to mels when it is run, told `known` (2 * size, 240) of them."""

    pack: Pack
    state: Tensor
    known: Tensor
    run: Callable[[], None]


class Flow:
    """Stock's flow in one number format; `stock`, in FP32, is only read."""

    def __init__(self, stock: CausalMaskedDiffWithXvec, device: torch.device, number_format: str, steps: int) -> None:
        dtype = WEIGHTS[number_format]
        self.device, self.number_format = device, number_format
        self.encoder, self.estimator = fuse_encoder(stock, device, dtype), fuse(stock.decoder.estimator, device, dtype)
        self._speaker = stock.spk_embed_affine_layer.weight.to(device), stock.spk_embed_affine_layer.bias.to(device)
        self._guidance = stock.decoder.inference_cfg_rate
        self._times, shifts = way(stock, steps)
        self._shifts = shifts.to(device, dtype)
        self._solvers: dict[int, Solver] = {}  # by size

    def in_use(self) -> str:
        """What it is made of, read from what it works with."""
        module = operations(self.device, self.estimator.dtype).__name__.rpartition(".")[2]
        graphs = "steps as CUDA graphs" if self._captures else "no graphs"
        return f"{str(self.estimator.dtype).removeprefix('torch.')} weights, attention of {module}, {graphs}"

    @torch.inference_mode()
    def __call__(self, tokens: Sequence[Tensor], seeds: Sequence[int], voice: Conditionals) -> list[Tensor]:
        """tokens (num_tokens,) int64 each, no more than fit into a pack; mels (80, frames) float32 of these tokens"""
        with float32_math(self.number_format):
            told = self._encode(tokens, voice)  # (2 * tokens of prompt and utterance, 80) each
            lengths = [len(one) for one in told]
            solver = self._solver(lengths)
            spans = solver.pack.spans[: len(tokens)]
            noise = normal(torch.tensor(seeds, device=self.device), FLOW, max(lengths) * MEL).view(len(seeds), -1, MEL)
            prompt = voice.prompt_feat[0].to(self.device)  # (frames, 80)
            speaker = F.linear(F.normalize(voice.embedding.to(self.device), dim=1), *self._speaker)  # (1, 80)
            solver.state.zero_()
            solver.known.zero_()
            for (begin, end), row, one in zip(spans, noise, told, strict=True):
                solver.state[begin:end] = row[: end - begin]
                solver.known[begin:end, :MEL] = one
                solver.known[begin:end, MEL : 2 * MEL] = speaker
                solver.known[begin : begin + len(prompt), 2 * MEL :] = prompt
        solver.run()  # starting so many kernels at once takes nearly as long as they do, in which others may go on
        return [solver.state[begin + len(prompt) : end].T.clone() for begin, end in spans]

    def _encode(self, tokens: Sequence[Tensor], voice: Conditionals) -> list[Tensor]:
        rows = [torch.cat([voice.prompt_token[0].to(one), one]) for one in tokens]
        lengths = torch.tensor([len(row) for row in rows])
        multiple = ROUND.get(self.device.type, 1)
        padded = torch.zeros(len(rows), -(-int(lengths.max()) // multiple) * multiple, dtype=torch.int64)
        for number, row in enumerate(rows):
            padded[number, : len(row)] = row
        made = encode(self.encoder, padded.to(self.device), lengths.to(self.device))
        return [row[: 2 * length] for row, length in zip(made, lengths.tolist(), strict=True)]

    @property
    def _captures(self) -> bool:
        return operations(self.device, self.estimator.dtype) is not plain

    def _solver(self, lengths: Sequence[int]) -> Solver:
        """One for a pack of these, captured where a GPU can."""
        if not self._captures:
            return self._make_solver(make_pack(lengths, max(sum(lengths), SHORTEST * len(lengths)), self.device))
        wanted = max(sum(lengths), SHORTEST * len(lengths))
        size = next((size for size in SIZES if size >= wanted), wanted)
        pack = make_pack(lengths, size, self.device)
        if size not in self._solvers:
            made = self._make_solver(pack)
            self._solvers[size] = Solver(made.pack, made.state, made.known, captured(made.run, self.device))
        solver = self._solvers[size]
        solver.pack.position.copy_(pack.position)
        solver.pack.blocks.copy_(pack.blocks)
        return Solver(pack, solver.state, solver.known, solver.run)

    def _make_solver(self, pack: Pack) -> Solver:
        size, dtype = len(pack.position) // 2, self.estimator.dtype
        state = torch.zeros(size, MEL, device=self.device)
        known = torch.zeros(2 * size, 3 * MEL, device=self.device, dtype=dtype)  # the second half: nothing is known

        def run() -> None:
            with float32_math(self.number_format):
                for number, shifts in enumerate(self._shifts):
                    seen = torch.cat([state.to(dtype).repeat(2, 1), known], dim=1)  # (2 * size, 320)
                    toward, anywhere = estimate(self.estimator, seen, shifts, pack).float().chunk(2)
                    guided = toward + self._guidance * (toward - anywhere)
                    state.add_(guided, alpha=self._times[number + 1] - self._times[number])

        return Solver(pack, state, known, run)


def frames(num_tokens: int, voice: Conditionals) -> int:
    """What an utterance takes of a pack."""
    return max(2 * (num_tokens + voice.prompt_token.shape[1]), SHORTEST)


def best_size(device: torch.device, number_format: str) -> int:
    """How many frames, prompts included, are best carried at once. A CPU gains nothing from company."""
    captures = operations(device, WEIGHTS[number_format]) is not plain
    return SIZES[-1] if captures else OTHER_SIZE.get(device.type, 1)


@torch.inference_mode()
def way(stock: CausalMaskedDiffWithXvec, steps: int) -> tuple[list[float], Tensor]:
    """Times of the way, steps + 1 of them, and what each step adds in each stage. (steps, stages, 256) float32"""
    estimator = stock.decoder.estimator
    times = 1 - torch.cos(torch.linspace(0, 1, steps + 1) * (0.5 * math.pi))
    embedded = F.mish(estimator.time_mlp(estimator.time_embeddings(times[:-1])))  # (steps, 1024)
    stages = (*estimator.down_blocks, *estimator.mid_blocks, *estimator.up_blocks)
    return times.tolist(), torch.stack([stage[0].mlp[1](embedded) for stage in stages], dim=1)
