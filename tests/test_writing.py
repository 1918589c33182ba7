"""Files are there whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from whatwhere.errors import OutputError, PlaceError
from whatwhere.writing import check_place, is_abandoned, left_behind, whole_file, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_the_file_takes_its_place_at_the_end(durable: bool, tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with whole_file(path, durable=durable) as partial:
        partial.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_goes_wrong_leaves_the_older_file(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as partial:
            partial.write_text("new")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_library_s_own_error_is_one_of_writing(tmp_path: Path) -> None:
    for error, words in ((LookupError("no ink"), "LookupError: no ink"), (LookupError(), "LookupError")):
        wanted = rf"a\.txt can't be written \({words}\); expected a writable place with room"
        with pytest.raises(OutputError, match=wanted), whole_file(tmp_path / "a.txt", failures=LookupError):
            raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("place", [".", "folder", "folder/new/", "file/x.json"])
def test_places_are_tried_before_long_work(place: str, tmp_path: Path) -> None:
    (tmp_path / "folder/new").mkdir(parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't be written"):
        check_place(tmp_path / place if place != "." else Path())
    with pytest.raises(OutputError, match=r"with room; name another with --picture"):
        check_place(tmp_path / "file/x.json", "name another with --picture")
    check_place(tmp_path / "made" / "x.json")
    check_place(None)
    assert names(tmp_path / "made") == []


@pytest.mark.parametrize("place", ["a file/x.json", "a file/folder/x.json"])
def test_a_file_in_the_way_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    told = rf"x\.json can't be written \({tmp_path}/a file is a file, and no folder\)"
    with pytest.raises(PlaceError, match=told):
        check_place(tmp_path / place)
    with pytest.raises(PlaceError, match=told):
        write_json(tmp_path / place, {})


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OutputError, match=r"a\.txt can't be written"), whole_file(tmp_path / "a.txt") as partial:
        partial.write_text("x")
    assert names(tmp_path) == ["a.txt"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a.txt") as partial:
            partial.chmod(0o600)  # as some libraries do
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_threads_write_one_file_in_turn(tmp_path: Path) -> None:
    """Each to a name of its own, so that none renames what another is still writing."""
    wrong: list[OutputError] = []

    def write(letter: str) -> None:
        try:
            for _ in range(50):
                with whole_file(tmp_path / "file") as partial:
                    partial.write_text(letter * 1000)
        except OutputError as error:
            wrong.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(set((tmp_path / "file").read_text())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_thread_left_is_abandoned(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for thread in ("", "17."):
        (tmp_path / f".file.{thread}{int(dead.stdout)}.partial").touch()
    (tmp_path / f".file.17.{os.getpid()}.partial").touch()
    left = left_behind(tmp_path / "file")
    assert len(left) == 3
    assert sum(map(is_abandoned, left)) == 2


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"iou": {"cat": float("nan"), "Küche": 0.5}, "sizes": (1, float("inf"))})
    text = (tmp_path / "a.json").read_text("utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"iou": {"cat": None, "Küche": 0.5}, "sizes": [1, None]}
    assert "Küche" in text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    """Who may write into /dev would lose /dev/null to a picture."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="it is no file"):
        check_place(pipe)
    with pytest.raises(OutputError, match="it is no file"):
        write_json(pipe, {})
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(tmp_path) == ["pipe"]


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    for folder in ("disk", "here"):
        (tmp_path / folder).mkdir()
    (tmp_path / "here/a.json").symlink_to("b.json")
    (tmp_path / "here/b.json").symlink_to("../disk/c.json")
    for record in ({"old": 1}, {"new": 1}):  # a link that leads nowhere yet, and one to a file
        check_place(tmp_path / "here/a.json")
        write_json(tmp_path / "here/a.json", record)
        assert json.loads((tmp_path / "disk/c.json").read_text()) == record
    assert (tmp_path / "here/a.json").is_symlink()
    assert (names(tmp_path / "here"), names(tmp_path / "disk")) == (["a.json", "b.json"], ["c.json"])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")
def test_a_link_to_what_the_screen_is_stays_one(tmp_path: Path) -> None:
    """As /dev/stdout is one, which root would lose to a file: where the screen is a file, that one would be lost."""
    screen, link = tmp_path / "screen.txt", tmp_path / "stdout"
    with screen.open("w") as file:
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        (tmp_path / "again").symlink_to("stdout")
        for place in (link, tmp_path / "again", link.readlink()):
            for write in (check_place, lambda path: write_json(path, {})):
                with pytest.raises(PlaceError, match=rf"{place} can't be written \(it is no file\)"):
                    write(place)
        file.write("a table")
    assert screen.read_text() == "a table"
    assert link.is_symlink()
    assert names(tmp_path) == ["again", "screen.txt", "stdout"]


def test_links_in_a_circle_are_no_place(tmp_path: Path) -> None:
    for one, other in ("ab", "ba"):
        (tmp_path / one).symlink_to(other)
    with pytest.raises(PlaceError, match="it is no file"):
        check_place(tmp_path / "a")


def test_a_name_that_is_no_utf_8_comes_back_from_json(tmp_path: Path) -> None:
    record = {"root": "Zellen-\udcfc", "image": "grün"}
    write_json(tmp_path / "a.json", record)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == record
