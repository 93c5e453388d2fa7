"""What a process may use of its machine."""

import os

import pytest
import torch

from pipeline.device import devices
from pipeline.device.devices import count_cpus, set_threads


@pytest.mark.parametrize("quota, count", [("150000 100000", 2), ("50000 100000", 1), ("800000 100000", 8)])
def test_a_container_is_granted_processors_by_its_quota(tmp_path, quota, count):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert count_cpus(tmp_path / "cpu.max") == count


def test_without_a_quota_all_are_granted(tmp_path):
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert count_cpus(tmp_path / "cpu.max") == count_cpus(tmp_path / "none") == os.cpu_count()


def test_threads_are_no_more_than_processors_unless_somebody_says_so(monkeypatch):
    before, asked = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(devices, "count_cpus", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", str(before))
    set_threads()
    assert asked == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    set_threads()
    assert asked == [1]
