"""Environment variables of Python, torch and Triton, set before they are read. Knows no model."""

import os
import sys
import tempfile
from importlib.metadata import version
from importlib.util import cache_from_source, find_spec
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


def keep_bytecode(folder: Path) -> None:
    """Let processes that are started from here on keep Python's bytecode in `folder`, if torch has none beside it.

    In many containers it has none, and none can be written there: each process compiles 1,100 files, for 2 s and more.
    """
    torch = find_spec("torch")  # imports nothing
    if torch is None or not torch.origin or sys.pycache_prefix:
        return
    beside = Path(cache_from_source(torch.origin))
    is_written = os.access(beside.parents[1], os.W_OK) and not sys.flags.dont_write_bytecode
    if not beside.exists() and not is_written:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # it is to keep files out of other folders than ours
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder)


def set_kernel_folder(folder: Path) -> None:
    """Let Triton keep compiled kernels in `folder`. OSError if the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    os.environ["TRITON_CACHE_DIR"] = str(folder)  # read when the first kernel is compiled
