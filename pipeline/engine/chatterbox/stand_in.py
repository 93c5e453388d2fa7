"""Stand-in checkpoints: seeded random weights in the five stock files, for machines without the real ones.

They use the same code paths as real weights. Sampling is peaked and draws only speech ids. Pitch is about 200 Hz, and
the audio is audible, unclipped and without pauses. NumPy draws each tensor, seeded by its name, so a stand-in is the
same on every machine. Knows nothing of engines and runs.
"""

import math
import os
import re
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from pipeline.data import TOKENS_PER_SECOND
from pipeline.engine.chatterbox.files import FULL, S3GEN_FILE, T3_FILE, TINY, TOKENIZER_FILE, VOICE_FILE, WEIGHT_FILES
from pipeline.engine.chatterbox.shapes import COMPUTED, expected_tensors
from pipeline.engine.chatterbox.stand_in_tokenizer import build_tokenizer
from pipeline.engine.chatterbox.vocabulary import SPEECH_TOKENS
from pipeline.engine.chatterbox.voice import ENCODER_PROMPT_S

TINY_DEPTH = {T3_FILE: 2, S3GEN_FILE: 1}  # blocks of each stack
PROMPT_SECONDS = {FULL: 10, TINY: 2}

# A tensor's scale relative to the neutral one, which keeps the variance. The first pattern found in the name counts.
GAINS = (
    # T3. The residual stream sums the speech token (1), its position (0.5) and the layers' outputs (about 1).
    (r"^(text|speech)_pos_emb", 0.5),
    (r"^speech_head", 5.0),  # standard deviation of a logit: a few tokens have nearly all of the probability
    (r"^tfmr.*(q|k)_proj", 1.2),
    (r"^tfmr.*o_proj", 4.0),  # attention averages over positions, which shrinks the variance
    (r"^tfmr.*down_proj", 2.0),
    # Flow. Stock multiplies the encoder's input by sqrt(512), so neutral blocks would add almost nothing to it.
    (r"^flow\.encoder.*(linear_out|w_2)", 10.0),
    (r"^flow\.spk_embed_affine_layer", math.sqrt(192)),  # its input has norm 1, not variance 1
    (r"^flow.*final_proj", 2.0),
    # Vocoder
    (r"^mel2wav\.conv_pre.*original0", 0.5),
    (r"^mel2wav.*convs\d.*original0", 0.5),
    (r"^mel2wav\.ups.*original0", 1.6),
    (r"^mel2wav\.conv_post.*original0", 0.4),
    (r"^mel2wav\.m_source", 6.0),
    (r"^mel2wav\.f0_predictor\.classifier", 20.0),  # Hz
    (r"project_down", 0.5),
    (r"^speaker_encoder.*\.(conv|linear)\w*\.weight", math.sqrt(2)),  # ReLU halves the variance
)


def write(folder: Path, size: str) -> None:
    """Write the stand-in of that `size` into `folder`, which must be new. It appears only when complete.

    OSError if it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        draft = Path(temporary) / folder.name
        draft.mkdir()
        for file in WEIGHT_FILES:
            save_file(_tensors(file, size), draft / file)
        build_tokenizer().save(str(draft / TOKENIZER_FILE))
        torch.save(_conditionals(PROMPT_SECONDS[size]), draft / VOICE_FILE)
        try:
            os.rename(draft, folder)
        except OSError:
            if not folder.exists():  # otherwise another process wrote it first
                raise


def _tensors(file: str, size: str) -> dict[str, np.ndarray]:
    expected = expected_tensors(file, depth=TINY_DEPTH.get(file) if size == TINY else None)
    tensors = {name: _draw(name, kind.shape) for name, kind in expected.items() if name not in COMPUTED}
    if file == T3_FILE:
        _balance_t3(tensors)
    elif file == S3GEN_FILE:
        _balance_s3gen(tensors)
    return tensors


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Neutral values times their gain. Neutral norms do nothing, biases are 0, weights keep their input's variance."""
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if kind.startswith("bias") or kind == "running_mean":
        return np.zeros(shape, np.float32)
    gain = next((gain for pattern, gain in GAINS if re.search(pattern, name)), 1.0)
    if kind in ("running_var", "alpha", "original0") or (kind == "weight" and len(shape) == 1):
        return np.full(shape, gain, np.float32)
    if "emb.weight" not in name and "embedding" not in name:
        gain /= math.sqrt(math.prod(shape[1:]))
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    return values * np.float32(gain)


def _balance_t3(tensors: dict[str, np.ndarray]) -> None:
    """Make the layers' total output the same at any depth, and the logit of ids that are not speech about -100.

    Every speech token sets channel 0 to 4, and no layer changes it. The head's weight there is -40 for those ids.
    """
    writers = [name for name in tensors if name.endswith(("o_proj.weight", "down_proj.weight"))]
    for name in writers:
        tensors[name] *= np.float32(len(writers) ** -0.5)
        tensors[name][0] = 0.0
    tensors["speech_emb.weight"][:, 0] = 4.0
    tensors["speech_pos_emb.emb.weight"][:, 0] = 0.0
    head = tensors["speech_head.weight"]  # (8194, 1024)
    head[:, 0] = 0.0
    head[SPEECH_TOKENS:] = 0.0
    head[SPEECH_TOKENS:, 0] = -40.0


def _balance_s3gen(tensors: dict[str, np.ndarray]) -> None:
    tensors["mel2wav.f0_predictor.classifier.bias"][:] = 200.0  # Hz
    tensors["mel2wav.conv_post.bias"][:9] = -0.7  # log magnitude of each of the 9 bins


def _conditionals(seconds: int) -> dict[str, dict[str, torch.Tensor | None]]:
    """A voice in stock's format, with a prompt of this length."""
    rng = np.random.default_rng(0)
    speaker = rng.standard_normal((1, 256), np.float32).clip(0)  # the voice encoder ends in a ReLU and an L2 norm
    encoder_seconds = min(seconds, int(ENCODER_PROMPT_S))
    t3 = dict(
        speaker_emb=speaker / np.linalg.norm(speaker),
        cond_prompt_speech_tokens=rng.integers(SPEECH_TOKENS, size=(1, TOKENS_PER_SECOND * encoder_seconds)),
        emotion_adv=np.full((1, 1, 1), 0.5, np.float32),
    )
    gen = dict(
        prompt_token=rng.integers(SPEECH_TOKENS, size=(1, TOKENS_PER_SECOND * seconds)),
        prompt_token_len=np.array([TOKENS_PER_SECOND * seconds]),
        prompt_feat=rng.standard_normal((1, 2 * TOKENS_PER_SECOND * seconds, 80), np.float32),
        embedding=rng.standard_normal((1, 192), np.float32),
    )
    return dict(
        t3=_torch(t3) | dict(clap_emb=None, cond_prompt_speech_emb=None), gen=_torch(gen) | dict(prompt_feat_len=None)
    )


def _torch(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
