"""One model, taken apart once and looked at many times: its paintings with paths held, and one pixel of them.

Everything measured comes from `explain`; what is kept here are results that the next question needs again. Knows a
model and images; nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whatwhere.errors import FieldError, ModelError
from whatwhere.explain.anatomy import Anatomy, UNetAnatomy
from whatwhere.explain.cases import Case
from whatwhere.explain.pixel import cut_everywhere, evidence_for, part_seen
from whatwhere.explain.pixels import Regions, interior_distance, regions
from whatwhere.explain.skips import Tally
from whatwhere.explain.stages import anatomy_of
from whatwhere.explain.study import path_means
from whatwhere.explorer.asked import Hold
from whatwhere.explorer.edits import Edit, altered
from whatwhere.explorer.errors import RefusalError
from whatwhere.explorer.gate import Gate, Turn
from whatwhere.explorer.kept import Kept, bytes_of
from whatwhere.explorer.shown import Shown
from whatwhere.explorer.stepwise import Stepwise
from whatwhere.field import Field
from whatwhere.network import Model, measuring_machine, prepare_torch
from whatwhere.network.copied import measurable
from whatwhere.records import VOID, Box

__all__ = ["Lens"]

_MEAN_IMAGES, _SIZES, _FOLLOWED, _SCORES = 8, 8, 64, 64
_EXAMPLE = 256
"""px; large enough for the deepest networks to have more than one unit at their coarsest level."""

_STEPS, _FEWEST, _COSTLY = 64, 16, 2**18
"""Of integrated gradients: a map of 64 correlated above 0.998, one of 15 above 0.98, with one of hundreds that adds up
within 1 %; by how much it misses is told beside it. So many up to so many pixels, then fewer for the same wait."""

Array = NDArray[Any]
Key = tuple[str, tuple[Edit, ...]]


class Lens:
    """A model to be looked at.

    Args:
        key, name: how requests and people name it.
        model: left untouched; a copy is taken apart.
        images: those it takes, on some of which the mean of each path is taken.
        gate: of all models of the desk.
        room: bytes of features to keep, for all images.

    Attributes:
        anatomy: its parts; to be used in a turn.
        spans: what `drawing` found of the windows, by size of image.
    """

    def __init__(
        self, key: str, name: str, model: Model, images: Callable[[Lens], Sequence[Shown]], gate: Gate, room: int
    ) -> None:
        machine = measuring_machine()
        prepare_torch()
        self.id, self.name, self.model = key, name, model
        self.device, self.dtype = machine.device, machine.dtype
        self.network = measurable(model.network, machine.device)
        self._images, self._gate = images, gate
        self.anatomy = self._taken_apart()
        self._followed: set[tuple[int, int]] = set()
        self._regions: Kept[str, Regions] = Kept(_SIZES, lambda _one: 1)
        self._scores: Kept[str, dict[str, Any] | None] = Kept(_SCORES, lambda _one: 1)
        self.spans: Kept[tuple[int, int], dict[str, Any]] = Kept(_SIZES, lambda _one: 1)
        self._alike: Kept[str, bool] = Kept(_SCORES, lambda _one: 1)
        self._kept: Kept[Key, tuple[Tensor, ...]] = Kept(room * 2 // 5, bytes_of)
        self._read: Kept[Key, dict[str, Tensor]] = Kept(room * 2 // 5, lambda found: bytes_of(found.values()))
        self._means: Kept[tuple[str, ...], tuple[Tensor, ...]] = Kept(1, lambda _one: 1)
        self._whole: Kept[str, Tensor] = Kept(room // 5, lambda logits: bytes_of([logits]))

    def _taken_apart(self) -> Anatomy:
        shape = (1, self.model.normalisation.channels, _EXAMPLE, _EXAMPLE)
        example = Case("example", np.zeros((*shape[2:], shape[1])), None, torch.zeros(shape, device=self.device))
        return anatomy_of(self.network, example)

    @contextmanager
    def turn(self, size: tuple[int, int] | None = None) -> Iterator[Turn]:
        """What uses the network does it inside; with the size of an image, its windows are followed before.

        Networks that whatwhere did not make are exported for every new size: with them, one goes alone.
        """
        if not isinstance(self.anatomy, UNetAnatomy):
            with self._gate.alone() as turn:
                self._follow(size)
                yield turn
            return
        while True:
            with self._gate.together() as turn:
                if size is None or size in self._followed:
                    yield turn
                    return
            with self._gate.alone():
                self._follow(size)

    def _follow(self, size: tuple[int, int] | None) -> None:
        """An anatomy keeps what it found for every size; after many sizes a new one begins."""
        if size is None or size in self._followed:
            return
        if len(self._followed) >= _FOLLOWED:
            self.anatomy = self._taken_apart()
            self._followed.clear()
        self.windows(size)
        self._followed.add(size)

    def windows(self, size: tuple[int, int]) -> Field:
        """What every layer sees on an image of this size."""
        return self.anatomy.windows((1, self.model.normalisation.channels, *size))

    @property
    def fast(self) -> AbstractContextManager[Any]:
        """What the network computes in, as in `explain`."""
        return torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)

    @property
    def means(self) -> tuple[Tensor, ...]:
        """What a path brings that is replaced by its mean over some images: those that lie here now."""
        there = self._images(self)
        if not there:
            raise RefusalError(422, "there is no image to take means of", "an image", "open an image first")
        images = self.alike(there, _MEAN_IMAGES)
        if not images:
            raise self.other_levels(there[0])

        def compute() -> tuple[Tensor, ...]:
            with self.fast:
                return path_means(self.anatomy, [self.input(shown) for shown in images])

        return self._means.get(tuple(shown.id for shown in images), compute)

    def alike(self, images: Sequence[Shown], most: int) -> list[Shown]:
        """The first images on which the network has its levels and paths: a very small one may lack the deepest."""
        return list(islice(filter(self.has_levels, images), most))

    def has_levels(self, shown: Shown) -> bool:
        """Whether the network has its levels and paths on an image, and can be read there."""

        def compute() -> bool:
            try:
                self.carried(shown)
            except (ModelError, FieldError):
                return False
            return True

        return isinstance(self.anatomy, UNetAnatomy) or self._alike.get(shown.id, compute)

    def other_levels(self, shown: Shown) -> RefusalError:
        height, width = shown.size
        return RefusalError(
            422,
            f"{self.name} has other levels on {shown.name}, of {width} x {height} px, than on larger images",
            "an image large enough for more than one unit on its coarsest map",
            "choose another image",
        )

    def takes(self, shown: Shown) -> bool:
        """Whether an image has the channels and the units that the model was trained on."""
        try:
            self.model.check(shown.raw, shown.name)
        except ModelError:
            return False
        return True

    def input(self, shown: Shown, edits: Sequence[Edit] = ()) -> Tensor:
        """``(1, C, H, W)`` network input."""
        raw = altered(shown.raw, edits) if edits else shown.raw
        return self.model.normalise(raw, shown.name)[None].to(self.device)

    def carried(self, shown: Shown, edits: tuple[Edit, ...] = ()) -> tuple[Tensor, ...]:
        """What each path carries: the encoder runs once an image."""

        def compute() -> tuple[Tensor, ...]:
            with torch.inference_mode(), self.fast:
                return tuple(self.anatomy.carried(self.input(shown, edits)))

        return self._kept.get((shown.id, edits), compute)

    def features(self, shown: Shown, edits: tuple[Edit, ...] = ()) -> dict[str, Tensor]:
        """The features of every layer, with every path there."""

        def compute() -> dict[str, Tensor]:
            with torch.inference_mode(), self.fast:
                return self.anatomy.read(self.input(shown, edits))[1]

        return self._read.get((shown.id, edits), compute)

    def logits(self, shown: Shown, holds: Mapping[str, Hold], edits: tuple[Edit, ...] = ()) -> Tensor:
        """``(classes, H, W)`` float32 with some paths held; only the decoder runs if the image was seen before."""
        if not holds and not edits:
            return self._whole.get(shown.id, lambda: self._decoded(shown, {}, ()))
        return self._decoded(shown, holds, edits)

    def _decoded(self, shown: Shown, holds: Mapping[str, Hold], edits: tuple[Edit, ...]) -> Tensor:
        carried = self.held(self.carried(shown, edits), holds)
        with torch.inference_mode(), self.fast:
            return self.anatomy.decode(carried, shown.size)[0].float()

    def held(self, carried: Sequence[Tensor], holds: Mapping[str, Hold]) -> list[Tensor]:
        """What the decoder is given when paths are held: cut (zeros), their mean, or something between both."""
        given = []
        for place, (path, own) in enumerate(zip(self.anatomy.paths, carried)):
            hold = holds.get(path.name, "pass")
            if hold == "pass":
                given.append(own)
            elif hold == "cut":
                given.append(torch.zeros_like(own))
            else:
                mean = self.means[place].to(own.dtype).expand_as(own)
                given.append(mean if hold == "mean" else own * float(hold) + mean * (1 - float(hold)))
        return given

    def scores(self, logits: Tensor, shown: Shown) -> dict[str, Any] | None:
        """Interior and boundary accuracy and IoU on this image; None without a mask in the model's classes.

        Where one class alone has an interior there is no interior accuracy: it would not tell *what*.
        """
        classes, truth = self.model.classes, shown.truth
        if truth is None or (truth[truth != VOID] >= classes.count).any():
            return None
        tally = Tally(classes, edges=False)
        found_in = self._regions.get(shown.id, lambda: regions(truth, interior_distance([truth], classes.count)))
        tally.add(logits[None], truth, found_in)
        found = {name: float(value[0]) for name, value in tally.scores(np.ones((1, 1), int)).items()}
        said = {name: None if np.isnan(value) else value for name, value in found.items()}
        return {
            "interior": said["interior accuracy"] if tally.classes_inside() > 1 else None,
            "boundary": said["boundary accuracy"],
            "iou": {str(k): said[f"IoU of {name}"] for k, name in enumerate(classes.names)},
        }

    def full_scores(self, shown: Shown) -> dict[str, Any] | None:
        """Those of the untouched painting."""
        return self._scores.get(shown.id, lambda: self.scores(self.logits(shown, {}), shown))

    def cuts(self, shown: Shown, pixel: tuple[int, int], edits: tuple[Edit, ...], prediction: int) -> tuple[Any, Any]:
        """What the pixel becomes without each path, and the smallest set of paths whose absence flips it."""
        box = part_seen(self.windows(shown.size), pixel, shown.size)
        at = (pixel[0] - box[0][0], pixel[1] - box[1][0])
        with torch.inference_mode(), self.fast:
            carried, size = self._carried_by(shown, edits, box)
            return cut_everywhere(self.anatomy, carried, size, at, self.means, prediction)

    def _carried_by(self, shown: Shown, edits: tuple[Edit, ...], box: Box) -> tuple[Sequence[Tensor], tuple[int, int]]:
        """What the paths carry on a part of the image, and its size; of networks made elsewhere, on the whole of it."""
        (top, bottom), (left, right) = box
        if (bottom - top, right - left) == shown.size or not isinstance(self.anatomy, UNetAnatomy):
            return self.carried(shown, edits), shown.size
        part = self.input(shown, edits)[..., top:bottom, left:right]
        return self.anatomy.carried(part), (bottom - top, right - left)

    def evidence(
        self, shown: Shown, pixel: tuple[int, int], edits: tuple[Edit, ...], step: Callable[[], None]
    ) -> dict[str, Any]:
        """Integrated gradients of one pixel's answer, in float32, where all paths pass.

        Args:
            step: called before each look at the network; what it raises ends the work.
        """
        image = self.input(shown, edits)
        baseline = torch.stack([self.input(one).mean((2, 3), keepdim=True) for one in self._likes(shown)]).mean(0)
        with torch.inference_mode():
            two = self.anatomy.read(image)[0][0, :, pixel[0], pixel[1]].topk(2)
        prediction, rival = two.indices.tolist()
        if two.values.isinf().any():  # the evidence for one against the other would be no number
            given = f"every class but {self.model.classes.names[prediction]} is switched off here"
            raise RefusalError(422, given, "a runner-up", "choose another pixel")
        most = max(_FEWEST, min(_STEPS, _STEPS * _COSTLY // (shown.size[0] * shown.size[1])))
        attribution, completeness, steps, _ = evidence_for(
            Stepwise(self.anatomy, step), self.windows(shown.size), image, baseline, pixel, prediction, rival, most
        )
        return {
            "attribution": attribution, "completeness": completeness, "steps": steps, "prediction": prediction,
            "rival": rival,
        }  # fmt: skip

    def _likes(self, shown: Shown) -> Sequence[Shown]:
        return self._images(self)[:_MEAN_IMAGES] or [shown]
