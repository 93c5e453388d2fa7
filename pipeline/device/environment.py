"""What torch and Triton read from the environment, set before they are imported. Knows no model."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

# Freed memory can be used again in pieces of any size; without it a decoder's memory stays lost to waveforms.
ALLOCATOR = "expandable_segments:True"
ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # before torch 2.9, and since


def set_allocator() -> None:
    """Choose CUDA's allocator for torch, unless the user has set either variable."""
    if not os.environ.keys() & set(ALLOCATOR_VARIABLES):
        os.environ[allocator_variable()] = ALLOCATOR


def allocator_variable() -> str:
    """The variable that the installed torch reads."""
    major, minor, *_ = version("torch").split(".")
    before, since = ALLOCATOR_VARIABLES
    return since if (int(major), int(minor)) >= (2, 9) else before


def set_kernel_folder(folder: Path) -> None:
    """Let Triton keep compiled kernels in `folder`; OSError if nothing can be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    os.environ["TRITON_CACHE_DIR"] = str(folder)  # read when a kernel is first wanted
