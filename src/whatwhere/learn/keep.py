"""Judges the averaged network while it learns, and keeps the best. Knows nothing of steps, rates or clocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from whatwhere.data.sets import Facts, ImageSet
from whatwhere.errors import ModelError, in_a_line
from whatwhere.judge import Scores
from whatwhere.learn.plan import Plan
from whatwhere.learn.run_folder import RunFolder
from whatwhere.learn.state import State
from whatwhere.learn.validate import collapsed, draw_preview, showing, spread, standing, validate
from whatwhere.network import Machine, Model, load_model, save_model
from whatwhere.paint import Engine

if TYPE_CHECKING:
    from whatwhere.field import Field

__all__ = ["Keeper"]

_USUAL_IMAGES = 32
"""Images of a validation in between when no clock runs."""
_SHARE = 0.1
"""Largest share of a time budget that all validations in between may take."""
_FEWEST_IMAGES = 4
_LAST_SHARE = 0.15
"""Largest share of a time budget that the end may take: training comes first."""
_LONG = 5.0
"""Seconds that an image takes which is not looked at twice to know."""


class Keeper:
    """Validations of one run: whole images, a preview picture each, a model file whenever it is the best so far."""

    def __init__(
        self,
        plan: Plan,
        images: ImageSet,
        facts: Sequence[Facts],
        seen: Mapping[str, str],
        folder: RunFolder,
        machine: Machine,
        say: Callable[[str], None],
    ) -> None:
        self._plan, self._images, self._seen = plan, images, seen
        self._sizes, self._present = [one.pixels for one in facts], [one.present for one in facts]
        self._folder, self._machine, self._say = folder, machine, say
        self._judged = showing(self._present, _USUAL_IMAGES)
        self._last = list(range(len(images)))
        self._field: Field | None = None

    def fit(self, state: State, budget: float) -> float:
        """Chooses how often and on how many images the network is judged; the seconds that the end will take."""
        (ready, pace), counters = self._seconds(state), state.counters
        each = pace * sum(self._sizes) / len(self._sizes)  # an image, on average
        if not counters.judged:  # a run that is gone on with judges the same images: scores are compared
            allowed = _SHARE * budget  # for all validations in between, one image of each to be drawn
            wanted = max(_FEWEST_IMAGES, int((allowed / counters.validations - ready) / each) - 1)
            counters.judged = min(len(self._images), wanted)
            judged = showing(self._present, counters.judged)
            often = int(allowed / (ready + pace * self._pixels([*judged, self._drawn(judged)])))
            counters.validations = max(1, min(counters.validations, often))
        self._judged = showing(self._present, counters.judged)
        # where nothing was judged before, there is nothing to compare with at the end
        shown = [self._drawn(self._judged), *(self._judged if counters.validations > 1 else [])]
        afford = max(1, int((_LAST_SHARE * budget / 1.1 - pace * self._pixels(shown)) / each))
        self._last = showing(self._present, max(len(self._judged) if counters.validations > 1 else 1, afford))
        if len(self._last) < len(self._images):
            self._say(
                f"the last validation will judge {len(self._last)} of {len(self._images)} images, so that training has "
                f"most of the time; whatwhere evaluate judges all"
            )
        return 1.1 * (ready + pace * self._pixels([*self._last, *shown])) + 1.0

    def _seconds(self, state: State) -> tuple[float, float]:
        """To make new weights ready, and for a pixel, by a few images; the first call of a network is slow."""
        few = spread(len(self._images), _FEWEST_IMAGES)
        for indices in (few[:1], few):
            began = time.perf_counter()
            engine = self._engine(self._model(state))
            ready = time.perf_counter() - began
            validate(engine, self._images, indices)
            taken = time.perf_counter() - began - ready
            if taken > _LONG * len(indices):  # then what is slow at first is little of it
                break
        return ready, taken / self._pixels(indices)

    def _drawn(self, indices: Sequence[int]) -> int:
        """Of some images the one that a picture is made of: with most classes."""
        return max(indices, key=lambda index: (len(self._present[index]), -index))

    def _pixels(self, indices: Sequence[int]) -> int:
        return sum(self._sizes[index] for index in indices)

    def judge(self, state: State) -> dict[str, Any]:
        """Judges the network as it is now; the history's entry."""
        counters = state.counters
        model = self._model(state)
        engine = self._engine(model)
        scores = validate(engine, self._images, self._judged)
        entry = self._noted(scores, state, counters.step)
        if entry["collapsed"] is not None:
            self._say(
                f"alarm at step {counters.step}: every pixel is painted {entry['collapsed']!r}; if this lasts, check "
                "masks and mapping with whatwhere check, or lower learning_rate"
            )
        draw_preview(engine, self._images, self._drawn(self._judged), self._folder.preview(counters.step))
        score = standing(scores)
        if score > counters.best_score:
            counters.best_score, counters.best_step = score, counters.step
            save_model(model, self._folder.model, durable=True)  # as the checkpoint is, which remembers the score
        return entry

    def finish(self, state: State) -> dict[str, Any]:
        """Keeps the last weights, or earlier ones if they were better, judged on every image if there is time."""
        last = best = self._model(state)
        save_model(last, self._folder.last, durable=True)
        engine, known = self._engine(last), state.counters.best_score
        if known >= 0 and known > standing(validate(engine, self._images, self._judged)):
            earlier = self._best(state)
            if earlier is not None:
                best, engine = earlier, self._engine(earlier)
        scores = validate(engine, self._images, self._last)
        entry = self._noted(scores, state, best.training["step"])
        draw_preview(engine, self._images, self._drawn(self._judged), self._folder.preview(entry["step"]))
        best.training |= {key: entry[key] for key in ("mean_iou", "iou", "validated")}
        save_model(best, self._folder.model, durable=True)
        return entry

    def _best(self, state: State) -> Model | None:
        """The best weights so far; None, and a line that says so, if their file is not there or not whole."""
        try:
            return load_model(self._folder.model, state.average.network if self._plan.network.module else None)
        except ModelError as error:
            self._say(f"the best weights so far are lost, and the last ones are kept instead: {in_a_line(error)}")
            return None

    def _noted(self, scores: Scores, state: State, step: int) -> dict[str, Any]:
        """The history's entry of the weights after a step, which may be an earlier one than the last."""
        entry = {
            "step": step, "elapsed": state.counters.elapsed, "validated": len(scores.images),
            "mean_iou": scores.mean_iou, "iou": scores.iou, "collapsed": collapsed(scores),
        }  # fmt: skip
        self._folder.record(entry)
        return entry

    def _model(self, state: State) -> Model:
        record = {
            "step": state.counters.step, "elapsed": state.counters.elapsed, "machine": str(self._machine),
            "seen": dict(self._seen),
        }  # fmt: skip
        plan = self._plan
        return Model(state.average.network, plan.classes, plan.normalisation, plan.to_json(), record)

    def _engine(self, model: Model) -> Engine:
        """For new weights each time; what can be known of a network without them is found out once."""
        engine = Engine(
            model, self._plan.training.precision, self._machine.device, backend="eager", field=self._field
        )  # fmt: skip
        if self._plan.network.module:
            self._field = engine.geometry.followed
        return engine
