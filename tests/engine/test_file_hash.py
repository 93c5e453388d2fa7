"""A file's hash is kept while the file stays as it is, and never longer."""

import hashlib
import os
from pathlib import Path

import pytest

from pipeline.engine.chatterbox import file_hash
from pipeline.engine.chatterbox.file_hash import hash_file


@pytest.fixture
def old(tmp_path) -> Path:
    """A file of an hour ago."""
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    os.utime(path, (1e9, 1e9))
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_that_stays_as_it_is_is_hashed_once(old, tmp_path, monkeypatch):
    assert hash_file(old, tmp_path / "cache") == sha256(b"one")
    monkeypatch.setattr(file_hash.hashlib, "file_digest", lambda *_: pytest.fail("it was read again"))
    assert hash_file(old, tmp_path / "cache") == sha256(b"one")


def test_other_bytes_of_the_same_length_and_time_are_hashed_again(old, tmp_path):
    hash_file(old, tmp_path / "cache")
    old.write_bytes(b"two")
    os.utime(old, (1e9, 1e9))
    assert hash_file(old, tmp_path / "cache") == sha256(b"two")


def test_another_file_of_the_same_name_is_hashed_again(old, tmp_path):
    hash_file(old, tmp_path / "cache")
    (tmp_path / "other").write_bytes(b"two")
    os.utime(tmp_path / "other", (1e9, 1e9))
    os.replace(tmp_path / "other", old)
    assert hash_file(old, tmp_path / "cache") == sha256(b"two")


def test_the_hash_of_a_file_that_has_just_changed_is_not_kept(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    hash_file(path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kept", ["", "[]", "{", '{"mark": 3}', "null"])
def test_a_damaged_cache_costs_a_second_reading(old, tmp_path, kept):
    hash_file(old, tmp_path / "cache")
    (file,) = (tmp_path / "cache" / "hashes").iterdir()
    file.write_text(kept)
    assert hash_file(old, tmp_path / "cache") == sha256(b"one")


def test_a_cache_that_cannot_be_written_is_no_error(old, tmp_path):
    (tmp_path / "cache").write_text("a file is in the way")
    assert hash_file(old, tmp_path / "cache") == sha256(b"one")
