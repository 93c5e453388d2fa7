"""A small disk of its own: full at any point, or read-only. One line, nothing lost, and the same command goes on."""

import os
import subprocess
from pathlib import Path

import pytest

from .test_generate import wav_bytes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")


@pytest.fixture
def disk(tmp_path):
    """A tmpfs; `disk.remount("size=9m")` changes it."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", path]).returncode:
        pytest.skip("no mount here")
    yield path
    subprocess.run(["umount", path], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def fill(disk: Path, left: int) -> None:
    """Leave room for so many bytes."""
    (disk / "ballast").unlink(missing_ok=True)
    free = os.statvfs(disk)
    with open(disk / "ballast", "wb") as file:
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - left)))


FEW = [4096 * pages for pages in (3, 40, 150)]
MANY = [4096 * pages for pages in (0, 1, 2, 4, 6, 8, 10, 15, 20, 60, 100, 200, 250, 280, 300, 310, 320, 330)]


@pytest.mark.parametrize("left", FEW + [pytest.param(left, marks=pytest.mark.long) for left in MANY])
@pytest.mark.parametrize("wandb", ["disabled", pytest.param("offline", marks=pytest.mark.long)])
def test_a_full_disk_is_one_line_and_exit_1_and_the_same_command_goes_on_after_room_is_made(draft, disk, left, wandb):
    fill(disk, left)
    full = draft(f"out={disk}/run", f"wandb.mode={wandb}")
    if full.code:
        assert full.code == 1 and "No space left" in full.err
        assert full.err.count("error: ") == 1 and "Traceback" not in full.err + full.out
    (disk / "ballast").unlink()
    assert draft(f"out={disk}/run", f"wandb.mode={wandb}").code == 0 and draft().code == 0
    assert wav_bytes(disk / "run") == wav_bytes() and not list(disk.rglob("*.tmp"))


def test_a_read_only_folder_is_one_line_and_exit_2_and_what_is_there_stays(draft, job, disk):
    assert draft(f"out={disk}/run", "limit=2").code == 0
    before = wav_bytes(disk / "run")
    remount(disk, "ro")
    try:
        ended = draft(f"out={disk}/run")
        assert ended.code == 2 and ended.err.count("\n") == 1 and "read-only" in ended.err.lower()
        assert job("audit", f"run={disk}/run", "watermark=none", "whole=true").code == 1
        fixed = job("audit", f"run={disk}/run", "watermark=none", "whole=true", "fix=true")
        assert fixed.code == 1 and fixed.err.count("\n") == 1 and "Read-only" in fixed.err
    finally:
        remount(disk, "rw")
    assert wav_bytes(disk / "run") == before
    assert draft(f"out={disk}/run").code == 0
