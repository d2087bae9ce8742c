import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from labkit.files import write_atomically


def test_a_file_is_written_with_the_folders_it_needs(tmp_path):
    write_atomically(tmp_path / "new" / "a.txt", lambda path: path.write_text("x"))
    assert (tmp_path / "new" / "a.txt").read_text() == "x"


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "a.txt", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write(path):
        path.write_text("new")
        assert target.read_text() == "old"

    write_atomically(target, write)
    assert target.read_text() == "new"


def test_threads_that_write_the_same_file_all_succeed_and_leave_one_of_theirs_whole(tmp_path):
    target = tmp_path / "a.txt"
    texts, writes = [str(i) * 100_000 for i in range(8)], []
    with ThreadPoolExecutor(8) as pool:
        for text in texts * 5:
            writes.append(
                pool.submit(write_atomically, target, lambda path, text=text: path.write_text(text))
            )
    assert all(write.exception() is None for write in writes)
    assert target.read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_on_a_shared_computer_may_read_what_was_written(tmp_path):
    def private(path):
        path.write_text("x")
        path.chmod(0o600)  # as safetensors does

    mask = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a.txt", private)
    finally:
        os.umask(mask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
