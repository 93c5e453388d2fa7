"""Compute the conditionals of many recordings ahead of time, so that later runs find them in the cache.

python -m jobs.voices clips=recordings/
"""

import logging
import os
from pathlib import Path

from jobs.cli import main
from pipeline.clip import read_clip
from pipeline.config import VoicesConfig
from pipeline.engine.registry import build_voice_engine
from pipeline.errors import UserError
from pipeline.run.stop import Stop

log = logging.getLogger(__name__)

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif"}


def voices(config: VoicesConfig, stop: Stop) -> int:
    """Prepare every usable clip. Unusable ones are logged; exit code 1 if there are any."""
    folder = Path(os.path.expanduser(config.clips))
    if not folder.is_dir():
        raise UserError(
            f"clips={config.clips}: {'this is a file' if folder.exists() else 'no such folder'}; give a folder"
        )
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"clips={config.clips}: no recording in it ({', '.join(sorted(SUFFIXES))})")
    engine = build_voice_engine(config)
    engine.prepare()
    bad = 0
    with stop.deferred():
        for path in paths:
            if stop():
                break
            try:
                engine.conditionals_of(read_clip(path), engine.precision.voice_encoder)
                log.info("%s: ready", path)
            except (UserError, FloatingPointError) as error:
                bad += 1
                log.error("%s", error)
    log.info("%d of %d voices ready", len(paths) - bad, len(paths))
    return 1 if bad else 0


if __name__ == "__main__":
    main("voices", VoicesConfig, voices)
