"""What commit 98b7de7 made of *Alice*'s first two chapters, kept as hashes. Not a test; used by `test_reference`.

To keep those of run folders, with as many threads as they were made with:
OMP_NUM_THREADS=1 python -m tests.jobs.reference NAME=FOLDER ...
"""

import hashlib
import json
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

FILE = Path(__file__).parents[1] / "data" / "alice_98b7de7.json"
# What each line or clock differs in, or what later versions added.
VOLATILE = {"created_at", "generation", "version", "crc32", "taken_from"}
# What depends on the samples, whose last bits depend on the CPU and on the libraries.
AUDIO = {"duration", "num_samples", "audio_sha256", "watermark_score", "speech_tokens", "peak_db", "rms_db"}
AUDIO |= {"silence_ratio", "chars_per_second"}


def machine() -> str:
    """Equal where the same samples can be expected: CPU, its threads in use, and libraries."""
    import torch

    cpu = next((line for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    packages = ("torch", "numpy", "soxr", "espeakng-loader", "resemble-perth")
    return _digest([cpu, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability(), *map(version, packages)])


def hashes_of(folder: Path) -> dict[str, list[str]]:
    """By id: the key, hashes of what the row says of the plan and of the audio, and the WAV's."""
    return {row["id"]: [row["key"], *_facts(row), _wav(folder, row)] for row in _rows(folder)}


def _rows(folder: Path) -> Iterator[dict]:
    for journal in sorted((folder / "journal").glob("*.jsonl")):
        yield from map(json.loads, journal.read_bytes().splitlines())


def _facts(row: dict) -> tuple[str, str]:
    row = {name: value for name, value in row.items() if name not in VOLATILE}
    row["attempts"] = [{n: v for n, v in attempt.items() if n != "sampling"} for attempt in row["attempts"]]
    audio = {name: row.pop(name) for name in AUDIO}
    return _digest(row), _digest(audio)


def _wav(folder: Path, row: dict) -> str:
    return hashlib.sha256((folder / row["file_name"]).read_bytes()).hexdigest()[:16] if row["file_name"] else ""


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def main() -> None:
    folders = dict(argument.split("=") for argument in sys.argv[1:])
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    kept |= {name: dict(machine=machine(), rows=hashes_of(Path(folder))) for name, folder in folders.items()}
    FILE.write_text(json.dumps(kept, indent=0) + "\n")


if __name__ == "__main__":
    main()
