"""Tables on narrow and wide terminals: nothing is cut."""

import numpy as np

from whatwhere.judge import Judge
from whatwhere.judge.tables import plain, scores_table
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
