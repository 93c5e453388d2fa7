"""Variables that are set for the user, unless the user has said how: memory, and where bytecode is kept."""

import os
import subprocess
import sys

import pytest

from pipeline.device import environment as module


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    """Before and after: what is set is gone with the test."""
    for name in module.ALLOCATOR_VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def said() -> dict[str, str]:
    return {name: os.environ[name] for name in module.ALLOCATOR_VARIABLES if name in os.environ}


@pytest.mark.parametrize(
    "version, name",
    [("2.6.0+cu124", "PYTORCH_CUDA_ALLOC_CONF"), ("2.9.1", "PYTORCH_ALLOC_CONF"), ("2.11.0", "PYTORCH_ALLOC_CONF")],
)
def test_the_variable_is_the_one_that_torch_reads_without_a_warning(version, name, monkeypatch):
    monkeypatch.setattr(module, "version", lambda package: version)
    module.set_allocator()
    assert said() == {name: module.ALLOCATOR}


@pytest.mark.parametrize("name", module.ALLOCATOR_VARIABLES)
def test_what_a_user_says_stands_whatever_the_name(name, monkeypatch):
    monkeypatch.setenv(name, "max_split_size_mb:64")
    module.set_allocator()
    assert said() == {name: "max_split_size_mb:64"}


KEEP = """
import subprocess, sys
from pathlib import Path
from pipeline.device.environment import keep_bytecode
keep_bytecode(Path("kept"))
subprocess.run([sys.executable, "-c", "import torch"], check=True)
"""


@pytest.mark.parametrize("can_write", [True, False])
def test_bytecode_is_kept_where_it_may_be_written(can_write, tmp_path):
    """As in a container that says PYTHONDONTWRITEBYTECODE=1, with a torch that was installed without bytecode."""
    (tmp_path / "libraries" / "torch").mkdir(parents=True)
    (tmp_path / "libraries" / "torch" / "__init__.py").write_text("")
    path = os.pathsep.join([str(tmp_path / "libraries"), os.getcwd()])
    env = os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "" if can_write else "1"}
    subprocess.run([sys.executable, "-c", KEEP], cwd=tmp_path, env=env, check=True)
    kept, beside = list(tmp_path.glob("kept/**/torch/*.pyc")), list(tmp_path.glob("libraries/torch/*/*.pyc"))
    assert (len(kept), len(beside)) == ((0, 1) if can_write else (1, 0))
