"""Signs of life and progress that a process gives to whoever watches it. Knows nothing of who that is."""

import time
from collections.abc import Callable

ALIVE, ROW, WAITING, RENDERING, ENDED, LOST = b".", b"+", b"w", b"r", b"!", b"?"
EVERY_S = 1.0  # between two signs of life


class Signs:
    """Each is one byte; what follows `LOST` says what is lost."""

    def __init__(self, tell: Callable[[bytes], None] = lambda sign: None) -> None:
        self._tell = tell
        self._told = 0.0

    def alive(self) -> None:
        """The process is at work. May be called thousands of times a second."""
        if (now := time.monotonic()) - self._told > EVERY_S:
            self._told = now
            self._tell(ALIVE)

    def row(self) -> None:
        """A row is durable. Any thread may call it."""
        self._tell(ROW)

    def rendering(self, begins: bool) -> None:
        """Rendering begins or ends. Only while it lasts is a long silence a sign that something hangs."""
        self._tell(RENDERING if begins else WAITING)

    def ended(self) -> None:
        """The process has done all it will, and exits on purpose."""
        self._tell(ENDED)

    def lost(self, what: str) -> None:
        """The process can do no more, but a new one could go on."""
        self._tell(LOST + what.encode())
