"""What each level knows, measured once a model in the background while the page is already there.

The same study, probes and scores as in the report of `explain`. Knows a lens and labelled images; nothing of requests.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from whatwhere.data.sets import ImageSet
from whatwhere.data.split import sources_of
from whatwhere.errors import WhatwhereError
from whatwhere.explain.cases import fellow, held_together
from whatwhere.explain.levels import NOBODY, NOT_MEASURED, Levels, Painters, gather, paint_by_probe, painting_probes
from whatwhere.explain.presence import VISIBLE, Presence, cell_counts, measure_presence, region_features
from whatwhere.explain.probes import Probe, fit_probe, softmax
from whatwhere.explain.stages import Bench, levels_of, prepare, study_of
from whatwhere.explain.study import CELLS, Study, pooled
from whatwhere.explorer.errors import NotReadyError, RefusalError
from whatwhere.explorer.gate import Turn
from whatwhere.explorer.lens import Lens
from whatwhere.explorer.shown import Shown

__all__ = ["Reading"]

_IMAGES = 16
_NO_LABELS = "there are no labelled images, so nothing can be read from the levels"


@dataclass(frozen=True, eq=False)
class _Known:
    """What the background measurement found."""

    bench: Bench
    study: Study
    levels: Levels | None
    painters: Painters
    presence: Presence | None


class Reading:
    """Probes of one model.

    Args:
        lens: the model.
        data: labelled images; None if there are none.
    """

    def __init__(self, lens: Lens, data: ImageSet | None) -> None:
        self._lens, self._data = lens, data
        self._sources = {} if data is None else dict(zip(data.names, sources_of(data.names)))
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._known: _Known | None = None
        self._share = 0.0
        self._why: str | None = None if data is not None and len(data) else _NO_LABELS

    def state(self) -> dict[str, Any]:
        """Whether all is measured, and why the levels are not; asking starts the measurement."""
        self._start()
        known, why = self._known, self._why
        levels = None
        if known is not None and known.levels is not None:
            levels = {
                one.layer.name: {"what": one.what.to_json(), "where": one.where.to_json()}
                for one in known.levels.readings
            }
        elif known is not None:
            note = next((note for note in known.bench.notes if note.startswith(NOT_MEASURED)), NOT_MEASURED)
            why = note.removeprefix(NOT_MEASURED).strip(" .")
        return {"ready": known is not None, "share": self._share, "levels": levels, "why": why}

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and self._why is None:
                self._stopped.clear()
                self._thread = threading.Thread(target=self._measure, name=f"reading {self._lens.name}", daemon=True)
                self._thread.start()

    def stop(self, seconds: float) -> None:
        """Ends the measurement, and waits for its end at most so long; who asks again starts it anew."""
        self._stopped.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _measure(self) -> None:
        teams = torch.get_num_threads()
        torch.set_num_threads(1)  # the other core is for who waits at the page
        try:
            assert self._data is not None
            with self._lens.turn() as turn:
                bench = prepare(self._lens.model, self._data, _IMAGES, 0, None, partial(self._tell, turn))
                study = study_of(bench)
            bench = replace(bench, tell=partial(self._tell, None))  # from here on without the network
            levels = levels_of(bench, study)
            classes, painters, together = self._lens.model.classes.count, NOBODY, held_together(bench.cases)
            if levels is not None:
                painters = painting_probes(bench.anatomy.layers, study.samples, together, classes)
            counts = [cell_counts(aim, CELLS, classes) for aim in bench.aims]
            presence = measure_presence(study.pooled, counts, classes, 0, together, bench.units)
            self._known = _Known(bench, study, levels, painters, presence)
            self._share = 1.0
        except WhatwhereError as error:
            self._why = str(error)
        except InterruptedError:
            with self._lock:
                self._thread, self._share = None, 0.0
        finally:
            torch.set_num_threads(teams)  # later threads take what was set last
            if self._known is None and self._why is None and not self._stopped.is_set():
                self._why = "reading the levels failed; the terminal says how"

    def _tell(self, turn: Turn | None, _what: str, share: float) -> None:
        if self._stopped.is_set():
            raise InterruptedError
        if turn is not None:
            turn.pause()
        self._share = min(0.99, share / 0.3)  # stages tell of the whole report, of which this is the first part

    def known(self) -> _Known:
        """What was measured.

        Raises:
            NotReadyError: it is still being measured.
            RefusalError: it cannot be.
        """
        self._start()
        if self._why is not None:
            raise RefusalError(422, self._why, "images with masks", "start again with --data DATA")
        if self._known is None:
            raise NotReadyError(self._share)
        return self._known

    def _place(self, known: _Known, shown: Shown) -> int | None:
        """Which of the measured images this is, or is held out with; None if it is new to every probe."""
        if shown.source is None:
            return None
        return fellow(known.bench.cases, shown.source, self._sources.get(shown.source, ""))

    def _probes(self, known: _Known, shown: Shown) -> Mapping[str, Probe]:
        """By layer; fitted on other images, of other sources, if there are any."""
        return known.painters.of(self._place(known, shown))

    def at(
        self, shown: Shown, features: dict[str, torch.Tensor], pixel: tuple[int, int]
    ) -> dict[str, tuple[float, ...]]:
        """What each level's probe reads at a pixel, as probabilities of the classes; empty while not measured."""
        if self._known is None:
            return {}
        found, probes = {}, self._probes(self._known, shown)
        for layer in self._lens.anatomy.layers:
            probe = probes.get(layer.name)
            if probe is not None and layer.name in features:
                x = gather(layer, features[layer.name], np.array([pixel[0]]), np.array([pixel[1]]))
                found[layer.name] = softmax(probe.logits(x)[0])
        return found

    def paintings(self, shown: Shown) -> dict[str, NDArray[np.uint8]]:
        """The image as each level paints it by its probe."""
        probes, features = self._probes(self.known(), shown), self._lens.features(shown)
        return {
            layer.name: paint_by_probe(layer, probes[layer.name], features[layer.name], shown.size)
            for layer in self._lens.anatomy.layers
            if layer.name in probes
        }

    def presence(self, shown: Shown) -> dict[str, Any]:
        """Is each class there? Read from the pooled bottleneck, by probes that have not seen this image."""
        known = self.known()
        if known.presence is None:
            raise RefusalError(
                422, "no class is both there and absent often enough in the labelled images", "images with and without",
                "give more images with --data",
            )  # fmt: skip
        classes = self._lens.model.classes
        own, together = self._place(known, shown), held_together(known.bench.cases)
        others = [place for place in range(len(together)) if own is None or together[place] != together[own]]
        counts = np.stack([cell_counts(known.bench.aims[place], CELLS, classes.count) for place in others])
        deep = next(layer for layer in self._lens.anatomy.layers if layer.name == "bottleneck")
        seen = pooled(deep, self._lens.features(shown)["bottleneck"], shown.size)[None]
        held = None if shown.truth is None else cell_counts(shown.truth, CELLS, classes.count)[None]
        said = []
        for class_id in known.presence.classes:
            x, there = region_features(
                known.study.pooled["bottleneck"][others], counts, known.presence.region, class_id
            )
            assert there is not None
            mine, _ = region_features(seen, None, known.presence.region, class_id)
            _, truth = region_features(seen, held, known.presence.region, class_id)
            chance = None
            if 0 < there.sum() < len(there):  # else the other images show one answer only, and of none other is known
                chance = max(softmax(row)[1] for row in fit_probe(x, there.astype(int), 2).logits(mine))
            said.append({
                "id": class_id, "name": classes.names[class_id], "probability": chance,
                "present": None if truth is None or not truth.size else bool(truth.any()),
            })  # fmt: skip
        return {
            "classes": said, "region": known.presence.region, "visible": VISIBLE,
            "score": known.presence.accuracy["bottleneck"].to_json(),
        }  # fmt: skip
