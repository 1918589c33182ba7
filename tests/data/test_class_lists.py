"""Names of classes from the lists of other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_folders import photo, save

from whatwhere.data.check import check
from whatwhere.data.class_lists import read_class_list
from whatwhere.data.folder import find
from whatwhere.data.survey import survey
from whatwhere.verbs import plan

RED, BLUE = (200, 10, 10), (10, 10, 200)
CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:200,10,10::\ntree:10,10,200::\n"
LISTS = {
    "labelmap.txt": CVAT,
    "label_colors.txt": "0 0 0\tbackground\n200 10 10\troad\n10 10 200\t\ttree \n",
    "class_dict.csv": "name, r, g, b\nbackground,0,0,0\nroad,200,10,10\ntree,10,10,200\n",
    "_classes.csv": "Pixel Value, Class\n0, background\n1, road\n2, tree\n",
    "dataset.json": '{"labels": {"background": 0, "road": 1, "tree": 2, "all": [1, 2]}}',
}
OLDER = '{"labels": {"0": "background", "1": "road", "2": "tree"}}'


def folder_of(root: Path, kind: str, masks: str = "masks", images: str = "images") -> Path:
    """Six images of three classes, which masks write in colours, numbers or a palette."""
    ids = np.arange(48 * 64).reshape(48, 64) // 1024
    palette = np.array([(0, 0, 0), RED, BLUE], np.uint8)
    for number in range(6):
        save(root / images / f"{number}.png", photo(number))
        path = root / masks / f"{number}.png"
        if kind == "palette":
            path.parent.mkdir(parents=True, exist_ok=True)
            mask = Image.fromarray(ids.astype(np.uint8), "P")
            mask.putpalette(palette.ravel().tolist())
            mask.save(path)
        else:
            save(path, palette[ids] if kind == "colours" else ids.astype(np.uint8))
    return root


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        *(("colours", name, LISTS[name]) for name in ("labelmap.txt", "label_colors.txt", "class_dict.csv")),
        *(("palette", name, text) for name, text in LISTS.items()),
        *(("numbers", name, LISTS[name]) for name in ("labelmap.txt", "_classes.csv", "dataset.json")),
        ("numbers", "dataset.json", OLDER),
    ],
)
def test_classes_are_named_as_the_list_beside_the_masks_has_them(
    kind: str, name: str, text: str, tmp_path: Path
) -> None:
    root = folder_of(tmp_path, kind)
    plain = survey(find(root)).classes
    (root / name).write_text(text)
    found = survey(find(root))
    assert found.classes
    assert plain
    names = ("background", "tree", "road") if kind == "colours" else ("background", "road", "tree")  # by their values
    assert found.classes.names == names
    assert (found.classes.values, found.classes.colors) == (plain.values, plain.colors), "it names, and no more"
    assert f"inferred from the masks; named as in {name}" in str(check(found))
    assert plan(root, epochs=1).classes.names == names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labelmap.txt", "no list at all"), ("labelmap.txt", ""), ("class_dict.csv", "a,b\n1,2\n"),
        ("dataset.json", '{"name": "mine"}'), ("dataset.json", "[1, 2]"),
        ("_classes.csv", "Pixel Value, Class\nx, y\n"),
        ("_classes.csv", "Pixel Value, Class\n7, other\n"), ("label_colors.txt", "\x00\x01\x02"),
        ("dataset.json", '{"labels": {"0": "a\\nb"}}'), ("dataset.json", '{"labels": {"0": "class 1"}}'),
    ],
)  # fmt: skip
def test_what_is_no_list_of_these_classes_changes_nothing(name: str, text: str, tmp_path: Path) -> None:
    root = folder_of(tmp_path, "numbers")
    (root / name).write_text(text)
    found = survey(find(root))
    assert found.classes
    assert found.classes.names == ("class 0", "class 1", "class 2")
    assert "inferred from the masks; name them in classes.toml" in str(check(found))


def test_a_classes_file_goes_before_a_list_and_a_list_may_lie_in_train(tmp_path: Path) -> None:
    root = folder_of(tmp_path, "numbers", "train/masks", "train/images")
    (root / "train/_classes.csv").write_text("Pixel Value, Class\n1, road\n2, road\n")
    found = survey(find(root)).classes
    assert found
    assert found.names == ("class 0", "road", "class 2"), "one name for one class"
    (root / "classes.toml").write_text("".join(f"[[class]]\nvalue = {k}\nname = 'mine {k}'\n" for k in range(3)))
    assert find(root).class_list is None
    declared = survey(find(root)).classes
    assert declared
    assert declared.names == ("mine 0", "mine 1", "mine 2")


def test_a_file_that_is_no_text_or_too_large_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_bytes(b"\xff\xfe\x80")
    (tmp_path / "label_colors.txt").write_text("0 0 0 a\n" * 200_000)
    assert read_class_list([tmp_path]) is None
    (tmp_path / "class_dict.csv").write_text(LISTS["class_dict.csv"])
    found = read_class_list([tmp_path / "nowhere", tmp_path])
    assert found
    assert found.path.name == "class_dict.csv"
