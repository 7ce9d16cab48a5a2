"""Files and folders are replaced whole, and nothing is removed that this program did not make."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hafabench import files
from hafabench.errors import UserError
from hafabench.files import atomic_folder, atomic_path, other_files, remove_leftovers, remove_made, write_text


def is_made(path: Path) -> bool:
    return path.suffix == ".made"


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def dead_process() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture(params=["one step", "three steps"])
def exchange(request, monkeypatch):
    """Run a test with and without the system call that exchanges two folders in one step."""
    if request.param == "three steps":
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_arguments, **_options: object())


@pytest.mark.usefixtures("exchange")
def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = fill(tmp_path / "data", "a.made", "sub/b.made")
    with atomic_folder(folder, is_made) as new:
        fill(new, "sub/c.made")
        assert names_in(folder) == ["a.made", "sub/b.made"]
    assert names_in(tmp_path) == ["data/sub/c.made"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("name", ["mine.txt", "sub/deep/mine.txt", ".hidden", "sub/ünï.txt"])
def test_a_folder_with_other_files_is_not_replaced(tmp_path, name):
    folder = fill(tmp_path / "data", "a.made", name)
    message = f"hafabench did not make {name} in it; move it away"
    with pytest.raises(UserError, match=message), atomic_folder(folder, is_made):
        raise AssertionError("the folder was accepted")
    assert names_in(tmp_path) == sorted(["data/a.made", f"data/{name}"])


@pytest.mark.usefixtures("exchange")
def test_a_file_that_is_added_meanwhile_is_kept(tmp_path):
    folder = fill(tmp_path / "data", "a.made")
    with pytest.raises(UserError, match=r"did not make mine\.txt"), atomic_folder(folder, is_made) as new:
        fill(new, "b.made")
        fill(folder, "mine.txt")
    assert names_in(tmp_path) == ["data/a.made", "data/mine.txt"]


def test_links_pipes_and_folders_behind_links_are_kept(tmp_path):
    elsewhere = fill(tmp_path / "elsewhere", "a.made")
    folder = fill(tmp_path / "data", "a.made")
    (folder / "link.made").symlink_to(elsewhere / "a.made")
    (folder / "folder.made").symlink_to(elsewhere)
    os.mkfifo(folder / "pipe.made")
    assert other_files(folder, is_made) == [Path("folder.made"), Path("link.made"), Path("pipe.made")]
    assert [path.name for path in remove_made(folder, is_made)] == ["folder.made", "link.made", "pipe.made"]
    assert names_in(elsewhere) == ["a.made"]
    assert sorted(path.name for path in folder.iterdir()) == ["folder.made", "link.made", "pipe.made"]


@pytest.mark.usefixtures("exchange")
def test_the_folder_behind_a_link_is_replaced(tmp_path):
    folder = fill(tmp_path / "disk/data", "a.made")
    (tmp_path / "data").symlink_to(folder)
    with atomic_folder(tmp_path / "data", is_made) as new:
        fill(new, "b.made")
    assert (tmp_path / "data").is_symlink()
    assert names_in(tmp_path / "disk") == ["data/b.made"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["data"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    fill(tmp_path, "data")
    with pytest.raises(UserError, match="expected a folder, found a file"), atomic_folder(tmp_path / "data", is_made):
        pass
    assert (tmp_path / "data").read_text() == "data"


def test_an_error_leaves_the_old_folder(tmp_path):
    folder = fill(tmp_path / "data", "a.made")
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder, is_made) as new:
        fill(new, "b.made")
        raise KeyboardInterrupt
    assert names_in(tmp_path) == ["data/a.made"]


@pytest.mark.parametrize("machine", [False, True], ids=["named by earlier versions", "named by this version"])
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path, machine):
    pid, path = dead_process(), tmp_path / "a.json"
    of_machine = f".{files._machine()}" if machine else ""
    fill(tmp_path, f".a.json{of_machine}.{pid}.tmp", f".b.json{of_machine}.{pid}.tmp", f".a.json{of_machine}.x.tmp")
    write_text(path, "new")
    assert names_in(tmp_path) == sorted(["a.json", f".b.json{of_machine}.{pid}.tmp", f".a.json{of_machine}.x.tmp"])


def test_what_running_processes_and_other_machines_write_is_kept(tmp_path):
    kept = [f".a.json.{os.getppid()}.tmp", ".a.json.1.tmp", f".a.json.00000000.{dead_process()}.tmp"]
    fill(tmp_path, *kept)
    write_text(tmp_path / "a.json", "new")
    assert names_in(tmp_path) == sorted(["a.json", *kept])


def test_who_writes_alone_removes_what_other_machines_left(tmp_path):
    kept = [f".a.json.{os.getppid()}.tmp", f".b.json.00000000.{dead_process()}.tmp"]
    fill(tmp_path, *kept, f".a.json.00000000.{os.getppid()}.tmp", f".a.json.{dead_process()}.tmp")
    remove_leftovers(tmp_path / "a.json", of_all_machines=True)
    assert names_in(tmp_path) == sorted(kept)


def test_a_left_folder_is_removed_and_a_half_replaced_one_moved_back(tmp_path):
    pid = dead_process()
    fill(tmp_path / f".data.{pid}.tmp", "half.made")
    fill(tmp_path / f".data.{pid}.old", "old.made")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "data", is_made):
        raise KeyboardInterrupt
    assert names_in(tmp_path) == ["data/old.made"]
    # An earlier process may have had the number of this one.
    fill(files._temporary(tmp_path / "data"), "half.made")
    with atomic_folder(tmp_path / "data", is_made) as new:
        fill(new, "new.made")
    assert names_in(tmp_path) == ["data/new.made"]


def test_links_named_like_temporary_files_are_removed_without_what_they_lead_to(tmp_path):
    elsewhere = fill(tmp_path / "elsewhere", "mine.txt")
    (tmp_path / f".a.json.{dead_process()}.tmp").symlink_to(elsewhere)
    with atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("new")
    assert names_in(tmp_path) == ["a.json", "elsewhere/mine.txt"]
