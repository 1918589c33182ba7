"""What a model knows of a data folder: whether its training divided it, and which of its images it learnt from.

Names alone don't tell: other folders count from 001 too, and so may train/ and val/ of one. So a model remembers the
pixels of some images that it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from whatwhere.data import Folder, Sample, read_image
from whatwhere.data.images import pixel_digest, without_alpha
from whatwhere.errors import DataError
from whatwhere.network import Model

__all__ = ["Remembered", "everything"]

_LOOKED_AT = 200
"""Images of a folder whose names say nothing, that are read to find out whether a model was trained on it."""


def everything(folder: Folder) -> tuple[Sample, ...]:
    """The samples with masks of all splits."""
    return tuple(sample for name in folder.splits for sample in folder.pairs(name))


class Remembered:
    """A folder, as a model remembers it. Images are read when first asked."""

    def __init__(self, folder: Folder, model: Model) -> None:
        self._folder, self._model = folder, model
        seen = model.training.get("seen")  # an older model has none, and goes by names
        self._seen: Mapping[str, str] = seen if isinstance(seen, Mapping) else {}

    @cached_property
    def is_here(self) -> bool:
        """Whether an image that it remembers having been trained on is in the folder, under its name."""
        here = (sample for sample in everything(self._folder) if sample.name in self._seen)
        return any(self._digest(sample) == self._seen[sample.name] for sample in here)

    @property
    def division(self) -> Mapping[str, Sequence[str]]:
        """Names by split as training divided this folder; {} if it was another one."""
        return self._planned if not self._seen or self.is_here else {}

    @property
    def trained(self) -> Sequence[str]:
        """Names of this folder's images that it was trained on."""
        return self.division.get("train", ())

    @property
    def names_several(self) -> bool:
        """Whether images of the folder are called like some that it was trained on, wherever those were."""
        names = {sample.name for sample in everything(self._folder)}
        return len(names.intersection(self._planned.get("train", ()))) > 1

    def count(self, samples: Sequence[Sample]) -> int:
        """How many of these it is known to have been trained on."""
        trained = frozenset(self.trained)
        divided = self._folder.as_divided("train", trained)
        own = {sample.name: sample.image for sample in divided if sample.name in trained}
        # those of train/ and of val/ may both count from 001
        return sum(sample.name in trained and own.get(sample.name, sample.image) == sample.image for sample in samples)

    def learnt_in(self, samples: Sequence[Sample]) -> set[str]:
        """Names of those in a part that training learnt from, if its folder has been divided since: known by pixels.

        Images of train/ and of test/ may both count from 001, and one be in both by mistake: so all must be as seen.
        """
        here = [sample for sample in samples if sample.name in self._seen]
        divided = here and all(self._digest(one) == self._seen[one.name] for one in here)
        return set(self._planned.get("train", ())) if divided else set()

    def met(self, samples: Sequence[Sample]) -> bool:
        """Whether one of so many is an image that it is known to have been trained on, whatever that is called."""
        remembered = self._seen.values()
        few = samples[:: -(-len(samples) // _LOOKED_AT) or 1] if remembered else ()
        return any(self._digest(sample) in remembered for sample in few)

    def would_know(self, samples: Sequence[Sample]) -> bool:
        """Whether `met` tells of each: all are looked at, and its training had so few that it knows all by pixels."""
        return len(samples) <= _LOOKED_AT and 0 < len(self._planned.get("train", ())) <= len(self._seen)

    def chose_by(self, samples: Sequence[Sample]) -> bool:
        """Whether its best weights were chosen by one of these."""
        names = frozenset(self.division.get("val", ()))
        judged = self._folder.as_divided("val", names) if names else ()  # of no names it would be all of val/
        return not {sample.image for sample in samples}.isdisjoint(sample.image for sample in judged)

    @property
    def _planned(self) -> Mapping[str, Sequence[str]]:
        split: Mapping[str, Sequence[str]] = self._model.plan.get("split", {})
        return split

    def _digest(self, sample: Sample) -> str:
        try:
            return pixel_digest(without_alpha(read_image(sample.image), self._model.normalisation.channels))
        except DataError:  # damaged by now: another one will do
            return ""
