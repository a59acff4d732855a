"""Facts about a user's path: what the system says, or one line that says why it does not."""

import errno
import os
from pathlib import Path

import pytest

from runner import user_paths
from runner.errors import ConfigError, DataError, StorageError

FACTS = {
    "is_dir": user_paths.is_dir,
    "is_file": user_paths.is_file,
    "exists": user_paths.exists,
    "listed": user_paths.listed,
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working folder, with a folder, a file, links to both, and links to nothing and to themselves."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").touch()
    (tmp_path / "folder" / "a").touch()
    (tmp_path / "file").touch()
    for name, target in {"to_folder": "folder", "to_file": "file", "nowhere": "missing", "loop": "loop"}.items():
        (tmp_path / name).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["folder", "file", "to_folder", "to_file", "nowhere", "missing", "file/x", "missing/x", "."]
)
def test_facts_are_those_of_the_system(place, name):
    path = Path(name)
    assert user_paths.is_dir(name) == path.is_dir()
    assert user_paths.is_file(name) == path.is_file()
    assert user_paths.exists(name) == path.exists()
    assert user_paths.exists(name, links=False) == os.path.lexists(name)
    assert user_paths.is_dir(name, links=False) == (path.is_dir() and not path.is_symlink())
    assert user_paths.listed(name) == (sorted(each.name for each in path.iterdir()) if path.is_dir() else [])


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("path", ["n" * 300, "n/" * 3000, "loop/x", "folder/\0", "\ud800"])
def test_what_is_not_known_is_one_line_with_path_and_reason(place, fact, path):
    for kind in (ConfigError, DataError, StorageError):
        with pytest.raises(kind) as caught:
            FACTS[fact](path, error=kind, key="data.root")
        line = str(caught.value)
        assert line.startswith(f"data.root: {'n' * 2 if path[0] == 'n' and path[1] == 'n' else ''}")
        assert line.isprintable() and len(line) < 600 and line.rpartition(": ")[2]


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP, errno.EPERM]
)
@pytest.mark.parametrize("fact", FACTS)
def test_each_error_of_the_system_is_named(place, monkeypatch, fact, number):
    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "stat", fails)
    monkeypatch.setattr(os, "listdir", fails)
    with pytest.raises(ConfigError) as caught:
        FACTS[fact]("folder")
    assert str(caught.value) == f"folder: {os.strerror(number)}"


def test_a_relative_path_counts_from_the_start_wherever_the_process_is(place, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with user_paths.anchored():
        os.chdir(elsewhere)
        assert user_paths.is_dir("folder") and user_paths.listed("folder") == ["a", "b"]
        assert user_paths.full("folder/../x") == f"{place}/folder/../x"
        assert user_paths.full("/x") == "/x"
        assert user_paths.absolute("folder/../x") == f"{place}/x"
        assert user_paths.real("to_folder/a") == place / "folder" / "a"
        assert user_paths.relative(place / "folder" / "a", "folder") == "a"
        assert user_paths.start_folder() == str(place)
        # As typed
        [(where, below, files)] = user_paths.walk("folder")
        assert (where, below, sorted(files)) == ("folder", [], ["a", "b"])
        assert user_paths.matching("fold*/[ab]") == [Path("folder/a"), Path("folder/b")]
    assert not user_paths.is_dir("folder")


def test_the_working_folder_comes_back_after_new_processes_were_started(place, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    with user_paths.anchored():
        os.chdir(gone)
        gone.rmdir()
        with user_paths.in_start_folder():
            assert Path.cwd() == place
        with pytest.raises(FileNotFoundError):
            Path.cwd()
    os.chdir(place)


def test_a_start_folder_that_was_deleted_is_none(place):
    (place / "gone").mkdir()
    os.chdir("gone")
    (place / "gone").rmdir()
    with user_paths.anchored():
        assert user_paths.start_folder() is None
        assert user_paths.full("x") == "x"
    os.chdir(place)
