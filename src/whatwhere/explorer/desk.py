"""The desk: the models and images that a page can look at, and the answers to all it asks, as JSON records.

Models and images never change once they lie here, and what a page holds or brushes comes with each request: so two
windows never disturb each other. Knows lenses, readings and images; nothing of HTTP.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from whatwhere.data.images import IMAGE_SUFFIXES
from whatwhere.data.sets import ImageSet
from whatwhere.errors import DataError, ModelError, WhatwhereError
from whatwhere.explain.pixel import ROUGH
from whatwhere.explain.pixels import interior_distance
from whatwhere.explain.sight import centred, ring_profile, side_holding
from whatwhere.explain.skips import measure_skips
from whatwhere.explorer.asked import Hold, edits_in, holds_in, pixel_in, text_in
from whatwhere.explorer.drawing import geometry, influenced_window, portrait, title_of
from whatwhere.explorer.edits import Edit, altered
from whatwhere.explorer.errors import RefusalError, missing
from whatwhere.explorer.gallery import strongest_maps
from whatwhere.explorer.gate import Gate, Turn
from whatwhere.explorer.labelled import Labelled
from whatwhere.explorer.lens import Lens
from whatwhere.explorer.names import apart
from whatwhere.explorer.pictures import data_url, packed
from whatwhere.explorer.reading import Reading
from whatwhere.explorer.shown import Shown, cut_to_size, open_shown
from whatwhere.explorer.stepwise import Stepwise
from whatwhere.network import Model, probe_machine, versions
from whatwhere.records import VOID

__all__ = ["UPLOAD_BYTES", "UPLOAD_PIXELS", "Desk"]

UPLOAD_BYTES = 64 * 2**20
UPLOAD_PIXELS = 100_000_000
_UPLOADS = 24
_ROOM = 2**30
"""Bytes of features kept for all models and images, on machines with memory enough."""
_EXAMPLE = (256, 256)


class Desk:
    """What lies on the desk.

    Args:
        models: names and models; the first is looked at first.
        images: paths of images; one that is among the labelled images has its mask from there.
        data: labelled images: some of them lie on the desk, and the levels are read with them.
        spare: of ``images`` those that are left out where they can't be shown.

    Attributes:
        left_out: why, a line each.
        key: of this desk and no other: what ids name on another one is something else.
    """

    def __init__(
        self,
        models: Sequence[tuple[str, Model]],
        images: Sequence[Path] = (),
        data: ImageSet | None = None,
        *,
        spare: Collection[Path] = (),
    ) -> None:
        self.key = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._fixed: dict[str, Shown] = {}
        self._uploads: OrderedDict[str, Shown] = OrderedDict()
        self._labelled = Labelled(data)
        gate, room = Gate(), min(_ROOM, probe_machine().memory // 4) // max(1, len(models))
        self.lenses: dict[str, Lens] = {}
        for k, (name, model) in enumerate(models):
            called = apart(name, [lens.name for lens in self.lenses.values()])
            self.lenses[f"m{k}"] = Lens(f"m{k}", called, model, self._known, gate, room)
        self.left_out: list[str] = []
        for path in images:
            try:
                shown = open_shown(f"i{len(self._fixed)}", path.name, path, self._channels)
            except WhatwhereError as error:
                if path not in spare:
                    raise
                self.left_out.append(str(error))
                continue
            self._lay(self._labelled.by_name(shown) or shown)
        there = {shown.source for shown in self._fixed.values()}
        for name in self._labelled.some():
            if name not in there:
                self._lay(self._labelled.lay(name, f"i{len(self._fixed)}"))
        self.readings = {key: Reading(lens, data) for key, lens in self.lenses.items()}

    @property
    def _channels(self) -> tuple[int, ...]:
        return tuple(sorted({lens.model.normalisation.channels for lens in self.lenses.values()}, reverse=True))

    def _lay(self, shown: Shown) -> None:
        self._fixed[shown.id] = self._named(shown)

    def _named(self, shown: Shown) -> Shown:
        """The image with a name that no other has here."""
        others = [one.name for one in (*self._fixed.values(), *self._uploads.values())]
        return replace(shown, name=apart(shown.name, others))

    def _known(self, lens: Lens) -> list[Shown]:
        """Of images that a model takes those that were there from the start, or else what was uploaded."""
        with self._lock:
            both = list(self._fixed.values()), list(self._uploads.values())
        fixed, uploads = ([shown for shown in some if lens.takes(shown)] for some in both)
        return fixed or uploads

    # -- what there is

    def session(self) -> dict[str, Any]:
        with self._lock:
            images = [*self._fixed.values(), *self._uploads.values()]
        models = []
        for key, lens in self.lenses.items():
            weights = sum(parameter.numel() for parameter in lens.network.parameters())
            models.append({"id": key, "name": lens.name, "title": title_of(lens), "parameters": weights})
        return {
            "version": versions()["whatwhere"], "key": self.key, "models": models,
            "images": [shown.to_json() for shown in images],
            "limits": {"upload_bytes": UPLOAD_BYTES},
        }  # fmt: skip

    def lens(self, key: str) -> Lens:
        if key not in self.lenses:
            raise missing("model", key)
        return self.lenses[key]

    def image(self, key: str, lens: Lens | None = None) -> Shown:
        with self._lock:
            shown = self._fixed.get(key) or self._uploads.get(key)
        if shown is None:
            raise missing("image", key)
        if lens is not None:
            try:
                lens.model.check(shown.raw, shown.name)
            except ModelError as error:
                raise RefusalError(422, error.given, error.expected, "choose another image or model") from error
        return shown

    def truth(self, image: str) -> dict[str, Any]:
        shown = self.image(image)
        if shown.truth is None:
            raise RefusalError(404, f"no mask is known for {shown.name}", "an image with its mask", "")
        return {"labels": packed(shown.truth)}

    def upload(self, name: str, body: bytes) -> dict[str, Any]:
        """Lays an image on the desk; of many uploads the oldest go, and the answer tells their ids.

        One of the labelled images is known by its pixels: it is not new to the probes, and its mask is there.
        """
        with TemporaryDirectory(prefix="whatwhere-") as folder:
            suffix = Path(name).suffix.lower()
            suffix = suffix if suffix in IMAGE_SUFFIXES else ".png"
            path = Path(folder) / f"upload{suffix}"
            path.write_bytes(body)
            called = Path(name).name[:80] or "upload"
            try:
                shown = open_shown(f"u{secrets.token_hex(6)}", called, path, self._channels, UPLOAD_PIXELS)
            except (DataError, ModelError) as error:
                given = error.given.replace(str(path), called)
                status = 415 if isinstance(error, DataError) else 422
                raise RefusalError(status, given, error.expected, error.remedy) from error
        lenses = list(self.lenses.values())
        if not any(lens.takes(shown) for lens in lenses):  # its values must be of the units that a model was trained on
            alike = [lens for lens in lenses if lens.model.normalisation.channels == shown.raw.shape[-1]]
            alike[0].model.check(shown.raw, called)
        known = self._labelled.by_name(shown) or self._labelled.by_pixels(shown)
        gone = []
        with self._lock:
            shown = self._named(replace(known or shown, name=called))
            self._uploads[shown.id] = shown
            while len(self._uploads) > _UPLOADS:
                gone.append(self._uploads.popitem(last=False)[0])
        return shown.to_json() | {"gone": gone}

    def close(self, seconds: float = 2.0) -> None:
        """Ends what is measured in the background."""
        for reading in self.readings.values():
            reading.stop(seconds / len(self.readings))

    # -- what is asked of a model

    def portrait(self, model: str) -> dict[str, Any]:
        lens = self.lens(model)
        size = next((shown.size for shown in self._known(lens)), _EXAMPLE)
        with lens.turn(size):
            return portrait(lens, size)

    def geometry(self, model: str, image: str) -> dict[str, Any]:
        lens = self.lens(model)
        shown = self.image(image, lens)
        with lens.turn(shown.size):
            return geometry(lens, shown)

    def _asked(self, record: Mapping[str, Any]) -> tuple[Lens, Shown, tuple[Edit, ...]]:
        """Of which model and image something is asked, and how that was brushed."""
        lens = self.lens(text_in(record, "model"))
        shown = self.image(text_in(record, "image"), lens)
        return lens, shown, edits_in(record, shown.size[1], shown.size[0])

    def painting(self, record: Mapping[str, Any]) -> dict[str, Any]:
        lens, shown, edits = self._asked(record)
        with lens.turn(shown.size if edits else None):
            holds = holds_in(record, [path.name for path in lens.anatomy.paths])
            return self._painted(lens, shown, holds, edits)

    def _painted(self, lens: Lens, shown: Shown, holds: Mapping[str, Hold], edits: tuple[Edit, ...]) -> dict[str, Any]:
        began = time.perf_counter()
        whole = lens.logits(shown, {})
        logits = lens.logits(shown, holds, edits)
        scores, full_scores = lens.scores(logits, shown), lens.full_scores(shown)
        best, before = logits.argmax(0), whole.argmax(0)
        answer = {
            "labels": packed(shown.where_data(_bytes(best))),
            "probability": packed(_bytes(logits.softmax(0).amax(0) * 255)),
            "changed": _share(shown, best != before),
            "scores": scores, "full_scores": full_scores, "edited": None,
        }  # fmt: skip
        if edits:
            answer |= self._edited(lens, shown, logits, lens.logits(shown, holds) if holds else whole, edits)
        return answer | {"seconds": time.perf_counter() - began}

    def _edited(
        self, lens: Lens, shown: Shown, logits: torch.Tensor, before: torch.Tensor, edits: Any
    ) -> dict[str, Any]:
        """What the brush did, and that it did nothing beyond what can see it."""
        raw = altered(shown.raw, edits)
        window = influenced_window(lens, shown, (raw != shown.raw).any(-1))
        outside = torch.ones(shown.size, dtype=torch.bool, device=logits.device)
        if window is not None:
            outside[window[0] : window[1], window[2] : window[3]] = False
        # of a class that is switched off, -inf less -inf would be no number
        moved = torch.where(logits == before, 0.0, logits - before).abs().amax(0)[outside]
        flipped = (logits.argmax(0) != before.argmax(0))[outside]
        edited = {
            "window": list(window or (0, 0, 0, 0)), "outside_changed": int(flipped.sum()),
            "largest_outside": float(moved.max()) if moved.numel() else 0.0,
        }  # fmt: skip
        return {"edited": edited, "picture": data_url(cut_to_size("", "", raw).rgb)}

    def pixel(self, record: Mapping[str, Any]) -> dict[str, Any]:
        lens, shown, edits = self._asked(record)
        row, column = pixel_in(record, shown.size[1], shown.size[0])
        with lens.turn(shown.size):
            holds = holds_in(record, [path.name for path in lens.anatomy.paths])
            here = lens.logits(shown, holds, edits)[:, row, column].softmax(0).cpu()
            order = here.argsort(descending=True).tolist()
            readings = self.readings[lens.id].at(shown, lens.features(shown, edits), (row, column))
            untouched = int(lens.logits(shown, {}, edits)[:, row, column].argmax())
            cuts, flip = lens.cuts(shown, (row, column), edits, untouched)
        truth = None if shown.truth is None else int(shown.truth[row, column])
        return {
            "prediction": order[0], "probability": float(here[order[0]]), "rival": order[min(1, len(order) - 1)],
            "probabilities": here.tolist(), "truth": None if truth == VOID else truth, "readings": readings,
            "untouched": untouched, "cuts": [cut.to_json() for cut in cuts], "flip": flip.to_json() if flip else None,
        }  # fmt: skip

    def evidence(self, record: Mapping[str, Any], stopped: Callable[[], bool]) -> dict[str, Any]:
        """Slow; ``stopped`` is asked in between whether the answer is still wanted."""
        lens, shown, edits = self._asked(record)
        pixel = pixel_in(record, shown.size[1], shown.size[0])
        with lens.turn(shown.size) as turn:
            found = lens.evidence(shown, pixel, edits, partial(_between, turn, stopped))
        attribution = found["attribution"]
        scale = float(abs(attribution).max()) or 1.0
        profile = ring_profile(centred(abs(attribution), pixel))
        shades = (128 + 127 * attribution / scale).round().clip(0, 255).astype(np.uint8)
        return {
            "evidence": packed(shades), "scale": scale, "completeness": found["completeness"],
            "rough": found["completeness"] > ROUGH,
            "half": side_holding(profile, 0.5), "most": side_holding(profile, 0.95),
            "prediction": found["prediction"], "rival": found["rival"],
        }  # fmt: skip

    def reading(self, model: str) -> dict[str, Any]:
        return self.readings[self.lens(model).id].state()

    def levels(self, model: str, image: str) -> dict[str, Any]:
        lens = self.lens(model)
        shown = self.image(image, lens)
        self.readings[model].known()
        with lens.turn():
            paintings = self.readings[model].paintings(shown)
        painted = {name: packed(shown.where_data(labels)) for name, labels in paintings.items()}
        return {"layers": [{"name": name, "painting": painting} for name, painting in painted.items()]}

    def features(self, model: str, image: str, layer: str) -> dict[str, Any]:
        lens = self.lens(model)
        shown = self.image(image, lens)
        with lens.turn(shown.size):
            return {"maps": strongest_maps(lens, shown, layer, self._known(lens))}

    def presence(self, model: str, image: str) -> dict[str, Any]:
        lens = self.lens(model)
        shown = self.image(image, lens)
        self.readings[model].known()
        with lens.turn():
            return self.readings[model].presence(shown)

    def skips(self, model: str, image: str, stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Shapley values on this one image; ``stopped`` as for evidence."""
        lens = self.lens(model)
        shown = self.image(image, lens)
        if shown.truth is None:
            raise RefusalError(
                422, f"no mask is known for {shown.name}", "an image with its mask", "start again with --data DATA"
            )
        with lens.turn() as turn, lens.fast:
            classes, anatomy = lens.model.classes, Stepwise(lens.anatomy, partial(_between, turn, stopped))
            worths = measure_skips(
                anatomy, [(lens.input(shown), shown.truth)], lens.means, classes,
                distance=interior_distance([shown.truth], classes.count), seed=0, precision=str(lens.dtype),
                progress=lambda _share: None, edges=False,
            )  # fmt: skip
        paths = []
        for place, path in enumerate(worths.paths):
            of = {name: worth[place].shapley.value for name, worth in worths.worth.items()}
            paths.append({
                "name": path.name, "interior": of.get("interior accuracy"), "boundary": of.get("boundary accuracy"),
            })  # fmt: skip
        return {"paths": paths, "note": "One image: no interval."}


def _between(turn: Turn, stopped: Callable[[], bool]) -> None:
    """Between two steps of something long: others come first, and what nobody wants any more ends."""
    turn.pause()
    if stopped():
        raise InterruptedError


def _share(shown: Shown, there: torch.Tensor) -> float:
    """Of the pixels with data, the share of those that are named; 0 where there are none."""
    counted = there.cpu().numpy()[np.s_[:] if shown.valid is None else shown.valid]
    return float(counted.mean()) if counted.size else 0.0


def _bytes(values: torch.Tensor) -> NDArray[np.uint8]:
    shades: NDArray[np.uint8] = values.float().round().to(torch.uint8).cpu().numpy()
    return shades
