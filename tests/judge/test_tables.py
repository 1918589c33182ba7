"""Tables on narrow and wide terminals: nothing is cut."""

import numpy as np

from whatwhere.judge import Judge, compare
from whatwhere.judge.tables import comparison_table, plain, scores_table
from whatwhere.records import Classes


def scores():
    classes = Classes(("background", "bicyclist"), ((0, 0, 0), (255, 0, 0)), ((0,), (1,)))
    judge = Judge(classes)
    rng = np.random.default_rng(0)
    for index in range(3):
        truth = np.zeros((40, 40), np.uint8)
        truth[10:30, 10 + index : 30] = 1
        judge.add(f"image {index}", truth, np.where(rng.random((40, 40)) < 0.1, 1 - truth, truth).astype(np.uint8))
    return judge.result()


def test_a_narrow_terminal_gets_two_tables_and_no_cut_number():
    text = plain(scores_table(scores()), width=80)
    assert "…" not in text
    assert text.count("background") == 2
    assert "Boundary F1" in text


def test_a_wide_terminal_gets_one_table():
    text = plain(scores_table(scores()), width=120)
    assert "…" not in text
    assert text.count("background") == 1


def test_runs_with_long_names_are_told_apart_and_no_score_breaks():
    one = scores()
    names = tuple(f"/home/researcher/projects/cells/runs/2025-11-20-unet-width32-depth4-seed{k}" for k in "01")
    compared = compare(one, one, names=names)
    for width in (80, 120):
        lines = plain(comparison_table(compared), width=width).split("\n")
        for letter, name in zip("AB", names):
            assert f"{letter}: {name}" in lines
        head = next(line for line in lines if "Score" in line)
        assert head.split()[:3] == ["Score", "A", "B"]
        for row in compared.differences:
            assert any(line.split()[:1] == [row.score] for line in lines), row.score
        assert max(map(len, lines)) <= width
    short = plain(comparison_table(compare(one, one, names=("wide", "deep"))), width=120)
    assert "wide better in" in short
    assert "A:" not in short
    alike = plain(comparison_table(compare(one, one, names=("run", "run"))), width=80)
    assert "A: run\nB: run" in alike
