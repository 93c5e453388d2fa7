"""The voice of a run: its conditionals on the device, by dtype of the voice encoder. Knows nothing of requests."""

from collections.abc import Callable

import torch

from pipeline.data import NotFinite
from pipeline.engine.chatterbox.voice import Conditionals


class RunVoice:
    """Caches `compute`, which takes a voice encoder's dtype and may raise FloatingPointError."""

    def __init__(self, compute: Callable[[str], Conditionals], device: torch.device) -> None:
        self._compute, self._device = compute, device
        self._found: dict[str, Conditionals | NotFinite] = {}  # by the voice encoder's dtype

    def __call__(self, encoder: str) -> Conditionals:
        """The conditionals, computed once. `NotFinite` at every call if half precision gave no finite numbers."""
        if encoder not in self._found:
            try:
                self._found[encoder] = self._compute(encoder).to(self._device)
            except FloatingPointError as error:
                self._found[encoder] = NotFinite("voice_encoder", str(error))
        if isinstance(voice := self._found[encoder], NotFinite):
            raise voice
        return voice

    @property
    def in_use(self) -> str:
        """The dtypes used so far, as in `bf16/fp32`."""
        return "/".join(self._found)
