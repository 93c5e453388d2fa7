"""The draft voice: espeak-ng through its shared library. Knows nothing of models, devices or seeds."""

import _ctypes
import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from pipeline.config import FP32, EspeakConfig, Precision, Sampling
from pipeline.data import FULL_SCALE, SAMPLE_RATE, Identity, Request, Speech
from pipeline.errors import UserError

# From espeak-ng's speak_lib.h.
SYNCHRONOUS, DONT_EXIT, POS_CHARACTER, CHARS_UTF8, RATE, PITCH = 2, 0x8000, 1, 1, 1, 3

Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class EspeakEngine:
    """The engine protocol over espeak-ng, one utterance at a time."""

    device = "cpu"
    precision = FP32
    can_retry = False  # the same text always gives the same samples
    safer = None
    unchecked = frozenset[str]()

    def __init__(self, options: EspeakConfig) -> None:
        self._options = options
        try:
            import espeakng_loader
        except ImportError as error:
            raise UserError("engine=espeak needs espeakng-loader: pip install 'chatterbox-batch[draft]'") from error
        self._library, self._data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path().encode()
        self.identity = Identity(
            model="espeak-ng",
            revision=self._version(),
            speaker=f"espeak-{options.voice}",
            voice_sha256="",
            options=dict(voice=options.voice, rate_wpm=options.rate_wpm, pitch=options.pitch),
        )

    def begin_loading(self, sampling: Sampling) -> None:
        """Nothing is to be loaded."""

    def prepare(self) -> None:
        self._render("")

    def use(self, precision: Precision) -> None:
        pass

    def max_tokens(self, predicted_s: float) -> int:
        return 0

    def synthesize(self, requests: Iterable[Request], stopping: Callable[[], bool]) -> Iterator[Speech]:
        for request in requests:
            if stopping():
                return
            yield Speech(request, self._render(request.utterance.spoken_text))

    def in_use(self) -> dict[str, str]:
        return dict(device="cpu", library=f"espeak-ng {self.identity.revision}", voice=self._options.voice)

    def gpu_memory_gib(self) -> float:
        return 0.0

    def padding(self) -> dict[str, float]:
        return {}

    def _version(self) -> str:
        with load_fresh(self._library) as library:
            library.espeak_Info.restype = ctypes.c_char_p
            return library.espeak_Info(None).decode()

    def _render(self, text: str) -> np.ndarray:
        """Samples of `text`. (num_samples,) float32"""
        import soxr

        parts: list[np.ndarray] = []

        def collect(wav, count: int, _events) -> int:
            if wav:
                parts.append(np.ctypeslib.as_array(wav, (count,)).copy())
            return 0  # go on

        callback = Callback(collect)
        with load_fresh(self._library) as library:
            rate = library.espeak_Initialize(SYNCHRONOUS, 0, self._data, DONT_EXIT)
            if rate <= 0:
                raise UserError(f"engine=espeak: espeak-ng does not start with its data in {self._data.decode()}")
            library.espeak_SetSynthCallback(callback)
            if library.espeak_SetVoiceByName(self._options.voice.encode()) != 0:
                raise UserError(f"engine.voice={self._options.voice}: espeak-ng has no such voice; try en-us")
            library.espeak_SetParameter(RATE, self._options.rate_wpm, 0)
            library.espeak_SetParameter(PITCH, self._options.pitch, 0)
            data = text.encode() + b"\0"
            library.espeak_Synth(data, len(data), 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
            library.espeak_Terminate()
        samples = np.concatenate(parts or [np.zeros(0, np.int16)]).astype(np.float32) / FULL_SCALE
        return soxr.resample(samples, rate, SAMPLE_RATE) if len(samples) else samples


@contextlib.contextmanager
def load_fresh(path: str) -> Iterator[ctypes.CDLL]:
    """Load espeak-ng for one block and unload it afterwards. Takes 2 ms.

    Its generator has hidden state that even espeak_Terminate does not reset. Without unloading, a text would sound
    different after other texts.
    """
    library = ctypes.CDLL(path)
    try:
        yield library
    finally:
        _ctypes.dlclose(library._handle)
