"""How torch hands out a GPU's memory: as the engine needs it, unless the user has said how."""

import os

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
