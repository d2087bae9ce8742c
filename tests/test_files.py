import pytest

from labkit.files import replace


def test_a_file_is_written_with_the_folders_it_needs(tmp_path):
    replace(tmp_path / "new" / "a.txt", lambda path: path.write_text("x"))
    assert (tmp_path / "new" / "a.txt").read_text() == "x"


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    def fail(path):
        path.write_text("half")
        raise OSError("disk full")

    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        replace(tmp_path / "a.txt", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write(path):
        path.write_text("new")
        assert target.read_text() == "old"

    replace(target, write)
    assert target.read_text() == "new"
