"""Cells told apart: the Rand F-score of membranes that were painted, beside their IoU.

    python bench/rand_score.py ../shared/data/isbi_membrane bench/out/equal_time/isbi_membrane-*/10

Cells are the connected parts (4 neighbours) of what is no membrane. V_Rand (Arganda-Carreras et al. 2015, doi
10.3389/fnana.2015.00142) asks of two pixels of one cell whether they were painted as one cell, and the other way
round; 1 is best, one gap in a membrane joins two cells and costs much. It is taken over the pixels that are cell in the
truth. Painted membrane goes to the nearest painted cell first, as the challenge's thinning of borders does, so that
only splits and merges count, not how wide membranes are. By scikit-image's ``adapted_rand_error``.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import adapted_rand_error

from common import table
from peers.task import Pair, read_mask, read_task


def v_rand(truth: NDArray[np.bool_], painted: NDArray[np.bool_]) -> float:
    """Of one image; both are True where membrane is."""
    cells, found = ndimage.label(~truth)[0], ndimage.label(~painted)[0]
    if not found.any():
        return 0.0
    nearest = ndimage.distance_transform_edt(painted, return_distances=False, return_indices=True)
    error, _, _ = adapted_rand_error(cells, found[tuple(nearest)], ignore_labels=(0,))
    return float(1 - error)


def scores(pairs: list[Pair], folder: Path, membrane: int) -> list[object]:
    rands, both, either = [], 0, 0
    for pair in pairs:
        truth = read_mask(pair.mask) == membrane
        painted = read_mask(folder / f"{pair.image.stem}.png") == membrane
        rands.append(v_rand(truth, painted))
        both, either = both + int((truth & painted).sum()), either + int((truth | painted).sum())
    return [both / either, statistics.fmean(rands), f"{min(rands):.3f} to {max(rands):.3f}", len(rands)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the data folder; its val/ is scored")
    parser.add_argument("painted", type=Path, nargs="+", help="folders of painted class ids")
    parser.add_argument("--membrane", type=int, default=1, help="its mask value")
    options = parser.parse_args()
    task = read_task(options.data)
    rows = [
        [f"{folder.parent.name} {folder.name}", *scores(list(task.val), folder, options.membrane)]
        for folder in options.painted
    ]
    print(table(["run, minutes", "membrane IoU", "V_Rand, mean of images", "lowest to highest", "images"], rows))


if __name__ == "__main__":
    main()
