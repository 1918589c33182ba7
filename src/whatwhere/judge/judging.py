"""Collect images, one at a time, and give their scores.

Knows label arrays; nothing of networks or files. What a user may get wrong is found here, so that the counting behind
it need not look again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from whatwhere.errors import DataError
from whatwhere.judge.counts import Counts, count_image
from whatwhere.judge.scores import Scores
from whatwhere.records import VOID, Classes

__all__ = ["Judge"]


class Judge:
    """Accumulates images; memory grows by a few counts an image, not by its pixels.

    Args:
        classes: what the class ids mean.
        tolerance: px within which an edge counts as found, for boundary F1 and surface Dice.
        boundary: False leaves out everything about edges and takes a tenth of the time (validation during training).
        contours_only: of edges only boundary F1 and Hausdorff distances, in half the time.
        seed: of the bootstrap.
        part: which images these will be, in words, to be told with the scores.

    Raises:
        DataError: a tolerance that is no distance.

    >>> from whatwhere.records import Classes
    >>> judge = Judge(Classes(("sky", "cat"), ((0, 0, 0), (255, 0, 0)), ((0,), (1,))))
    >>> judge.add("tom", np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 1]], np.uint8))
    >>> judge.result().iou
    {'sky': 0.5, 'cat': 0.5}
    """

    def __init__(
        self,
        classes: Classes,
        *,
        tolerance: float = 2.0,
        boundary: bool = True,
        contours_only: bool = False,
        seed: int = 0,
        part: str = "",
    ) -> None:
        if not 0 <= tolerance < np.inf:
            raise DataError(f"a tolerance of {tolerance} px", "0 or a larger number", "2 is usual")
        self.classes = classes
        self.tolerance = tolerance
        self.boundary, self.contours_only = boundary, contours_only
        self.seed = seed
        self.part = part
        self._images: dict[str, Counts] = {}

    def __len__(self) -> int:
        return len(self._images)

    def add(
        self,
        name: str,
        truth: NDArray[np.uint8],
        prediction: NDArray[np.uint8],
        probabilities: NDArray[Any] | None = None,
        confidence: NDArray[Any] | None = None,
    ) -> None:
        """Count one image.

        Args:
            name: of the image; each name once.
            truth: ``H x W`` class ids; 255 is void.
            prediction: ``H x W`` class ids.
            probabilities: ``C x H x W`` in [0, 1], for the calibration error.
            confidence: in their place, ``H x W``, the probability of the predicted class.

        Raises:
            DataError: shapes differ, an id is no class or no integer, a name comes twice, or the probabilities are no
                probabilities.
        """
        if name in self._images:
            raise DataError(f"{name} was judged already", "each image once", "give each image its own name")
        truth, prediction = np.asarray(truth), np.asarray(prediction)
        self._check_labels(name, truth, prediction)
        if probabilities is not None:
            self._check_probabilities(name, (self.classes.count, *truth.shape), probabilities)
            # where void, a prediction may hold anything
            painted = np.minimum(prediction, self.classes.count - 1)[None]
            confidence = np.take_along_axis(probabilities, painted, 0)[0]
        elif confidence is not None:
            self._check_probabilities(name, truth.shape, confidence)
        self._images[name] = count_image(
            truth.astype(np.uint8, copy=False),
            prediction.astype(np.uint8, copy=False),
            confidence,
            classes=self.classes.count,
            tolerance=self.tolerance,
            boundary=self.boundary,
            contours_only=self.contours_only,
        )

    def result(self) -> Scores:
        """Scores of all images so far.

        Raises:
            DataError: no image was added.
        """
        if not self._images:
            raise DataError("no image to score", "at least one image with its mask", "check the folder and the split")
        return Scores(
            self.classes,
            tuple(self._images),
            Counts.stack(tuple(self._images.values())),
            self.tolerance,
            self.boundary,
            self.seed,
            part=self.part,
        )

    def _check_labels(self, name: str, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> None:
        if truth.ndim != 2 or truth.shape != prediction.shape:
            raise DataError(
                f"{name}: truth of shape {truth.shape} and prediction of shape {prediction.shape}",
                "two H x W arrays of one shape",
                "paint the image at its own size",
            )
        for what, labels in (("truth", truth), ("prediction", prediction[truth != VOID])):
            if labels.dtype.kind not in "biu":
                raise DataError(
                    f"{name}: {what} of dtype {labels.dtype}", "class ids, which are integers", "take argmax first"
                )
            present = np.unique(labels)
            strange = [int(i) for i in present if not 0 <= i < self.classes.count and (i != VOID or what != "truth")]
            if strange:
                raise DataError(
                    f"{name}: {what} holds the class ids {', '.join(map(str, strange[:5]))}",
                    f"0 to {self.classes.count - 1}" + (f" or {VOID} (void)" if what == "truth" else ""),
                    "map mask values to class ids before judging",
                )

    def _check_probabilities(self, name: str, expected: tuple[int, ...], probabilities: NDArray[Any]) -> None:
        if probabilities.shape != expected:
            raise DataError(
                f"{name}: probabilities of shape {probabilities.shape}", f"{expected}", "classes come first"
            )
        low, high = probabilities.min(initial=0), probabilities.max(initial=0)
        if not (low >= 0 and high <= 1.001):  # also NaN; half-precision sums round a little above 1
            raise DataError(
                f"{name}: probabilities from {low:g} to {high:g}", "values from 0 to 1", "apply softmax to logits first"
            )
