"""Environment variables of torch and Triton, set before either is imported. Knows no model."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

# Lets freed memory be reused in pieces of any size. Without it, waveforms cannot use the memory of a freed decoder.
ALLOCATOR = "expandable_segments:True"
ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # before torch 2.9, and since


def set_allocator() -> None:
    """Configure torch's CUDA allocator, unless the user has set either variable."""
    if not os.environ.keys() & set(ALLOCATOR_VARIABLES):
        os.environ[allocator_variable()] = ALLOCATOR


def allocator_variable() -> str:
    """The variable that the installed version of torch reads."""
    major, minor, *_ = version("torch").split(".")
    before, since = ALLOCATOR_VARIABLES
    return since if (int(major), int(minor)) >= (2, 9) else before


def set_kernel_folder(folder: Path) -> None:
    """Let Triton keep compiled kernels in `folder`. OSError if the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    os.environ["TRITON_CACHE_DIR"] = str(folder)  # read when the first kernel is compiled
