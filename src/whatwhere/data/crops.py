"""Draws training crops: which image, where in it, and how varied. Stateless: crop n of a seed is always the same.

Rare classes are seen because a share of the crops is centred on a pixel of a class drawn by need, not by area.
Knows nothing of networks.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from whatwhere.data.augment import (
    Augmentation,
    Geometry,
    crop_by,
    draw_geometry,
    draw_intensity,
    vary_intensity,
    window_of,
)
from whatwhere.data.crops_together import Drawn, Together
from whatwhere.errors import is_out_of_memory
from whatwhere.records import Normalisation

__all__ = ["Crops", "Store"]

Load = Callable[[], tuple[np.ndarray, np.ndarray]]


class Store:
    """Decoded images and labels, kept in memory as long as they fit.

    Args:
        loads: for each image a function that reads it: ``HxWxC`` raw values and ``HxW`` uint8 labels.
        limit: bytes of memory that decoded images may take.
        rolling: where they don't fit, those that were asked for last are kept, and one however large; else the first.
    """

    def __init__(self, loads: Sequence[Load], limit: int, *, rolling: bool = False) -> None:
        self._loads = loads
        self.limit, self._rolling = limit, rolling
        self._held = 0
        self._kept: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._loads)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            pair = self._kept.get(index)
            if pair is not None:
                self._kept.move_to_end(index)
                return pair
        pair = self._loads[index]()
        with self._lock:
            if index not in self._kept and (self._rolling or self._held + _bytes(pair) <= self.limit):
                self._kept[index] = pair
                self._held += _bytes(pair)
                while self._held > self.limit and len(self._kept) > 1:
                    self._held -= _bytes(self._kept.popitem(last=False)[1])
        return pair


def _bytes(pair: tuple[np.ndarray, np.ndarray]) -> int:
    return pair[0].nbytes + pair[1].nbytes


_USES = 8
"""Crops that are cut from an image, on average, before it makes room for another, where not all fit into memory."""

_AHEAD = 2
"""Batches that wait to be taken, beside those that are being made."""

_LOOKED_AT = 2**15
"""Pixels among which one of a class is looked for first; of larger images every second, third ... row and column."""


def _place_of(rng: np.random.Generator, labels: np.ndarray, wanted: int) -> tuple[int, int] | None:
    """A random pixel of a class, or None if there is none."""
    step = max(1, math.isqrt(labels.size // _LOOKED_AT))
    while step:
        top, left = (int(rng.integers(step)) for _ in range(2)) if step > 1 else (0, 0)
        few = labels[top::step, left::step]
        places = np.flatnonzero(few == wanted)
        if places.size:
            y, x = divmod(int(places[rng.integers(places.size)]), few.shape[1])
            return top + step * y, left + step * x
        step = max(1, step // 4) if step > 1 else 0  # small objects may lie between
    return None


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, 2, epoch]).permutation(count)


@dataclass(frozen=True)
class Crops:
    """The endless sequence of training crops of a data set.

    Attributes:
        store: the images.
        presence: for each image the ids of the classes it holds. One that holds none, as a tile without data, is
            passed over, unless all are so.
        normalisation: the data set's constants.
        crop: side of the squares in pixels.
        augmentation: how far they vary.
        class_aware: share of crops centred on a class drawn uniformly, instead of anywhere.
        seed: everything else follows from it and from the number of the crop.
        window: how many images are drawn from at a time; 0 for all. Every 8 crops a new one enters and the oldest
            leaves: so each is read once for about as many crops, where they don't fit into memory together.
    """

    store: Store
    presence: tuple[tuple[int, ...], ...]
    normalisation: Normalisation
    crop: int
    augmentation: Augmentation
    class_aware: float
    seed: int
    window: int = 0

    def crop_number(self, number: int) -> tuple[Tensor, Tensor]:
        """Crop ``number``: ``(C, crop, crop)`` float32 normalised and ``(crop, crop)`` uint8 labels."""
        drawn = self.draw(number)
        image, target = crop_by(*self._cut(drawn), self.crop)
        return vary_intensity(drawn.intensity, image), target

    def draw(self, number: int) -> Drawn:
        """All that is left to chance in crop ``number``."""
        rng = np.random.default_rng([self.seed, 1, number])
        wanted = self._wanted_class(rng)
        raw, labels = self.store[self._in_turn(number) if wanted is None else self._holding(rng, wanted, number)]
        centre = self._centre(rng, labels, wanted)
        geometry = draw_geometry(rng, self.augmentation, centre, labels.shape, self.crop)
        intensity = draw_intensity(rng, self.augmentation, (raw.shape[2], self.crop, self.crop))
        return Drawn(raw, labels, geometry, intensity)

    def _wanted_class(self, rng: np.random.Generator) -> int | None:
        if rng.random() >= self.class_aware:
            return None
        known = list(self._holders)
        return known[rng.integers(len(known))] if known else None

    @cached_property
    def _holders(self) -> dict[int, np.ndarray]:
        """For each class the images that hold it."""
        holders = defaultdict[int, list[int]](list)
        for index, held in enumerate(self.presence):
            for one in held:
                holders[one].append(index)
        return {one: np.array(holders[one]) for one in sorted(holders)}

    def _in_turn(self, number: int) -> int:
        """Image after image, in an order drawn for each epoch; or one of the window's.

        A crop for a class comes from elsewhere, and uses up the turn that has its number.
        """
        if not self.window:
            return self._at(number)
        rng = np.random.default_rng([self.seed, 3, number])
        return self._at(number // _USES + int(rng.integers(self.window)))

    def _at(self, place: int) -> int:
        epoch, place = divmod(place, len(self._labelled))
        return int(self._labelled[_order(self.seed, epoch, len(self._labelled))[place]])

    @cached_property
    def _labelled(self) -> np.ndarray:
        """The images that hold a class; all, if none does."""
        found = np.flatnonzero([len(held) for held in self.presence])
        return found if found.size else np.arange(len(self.store))

    def _holding(self, rng: np.random.Generator, class_id: int, number: int) -> int:
        """An image that holds a class, of the window's if there is one."""
        held = self._holders[class_id]
        if self.window:
            here = np.zeros(len(self.store), bool)
            here[self._window_at(number // _USES)] = True
            few = held[here[held]]
            held = few if few.size else held
        return int(held[rng.integers(len(held))])

    def _window_at(self, first: int) -> np.ndarray:
        """`_at` for each place of a window that begins at one."""
        count = len(self._labelled)
        epochs = range(first // count, (first + self.window - 1) // count + 1)
        orders = np.concatenate([_order(self.seed, epoch, count) for epoch in epochs])
        turns: np.ndarray = self._labelled[orders[first % count :][: self.window]]
        return turns

    def _centre(self, rng: np.random.Generator, labels: np.ndarray, wanted: int | None) -> tuple[float, float]:
        height, width = labels.shape
        if wanted is not None:
            place = _place_of(rng, labels, wanted)
            if place is not None:
                y, x = place
                # anywhere in the middle half of the crop, or the network learns that the centre is special
                jitter = rng.uniform(-self.crop / 4, self.crop / 4, size=2)
                return y + float(jitter[0]), x + float(jitter[1])
        return float(rng.uniform(0, height)), float(rng.uniform(0, width))

    def _cut(self, drawn: Drawn) -> tuple[Geometry, Tensor, Tensor]:
        """Only what the crop can touch, normalised, so that a large image costs no more than a small one."""
        top, left, side = window_of(drawn.geometry, self.crop)
        y0, x0 = max(top, 0), max(left, 0)
        here = slice(y0, top + side), slice(x0, left + side)
        piece = np.moveaxis(drawn.raw[here], -1, 0).astype(np.float32)
        mean = np.asarray(self.normalisation.mean, np.float32)[:, None, None]
        scale = 1 / np.asarray(self.normalisation.std, np.float32)[:, None, None]
        y, x = drawn.geometry.centre
        moved = replace(drawn.geometry, centre=(y - y0, x - x0))
        image = torch.from_numpy((piece - mean) * scale)
        return moved, image, torch.from_numpy(np.ascontiguousarray(drawn.labels[here]))

    def _batch(self, numbers: Sequence[int], together: Together | None) -> tuple[Tensor, Tensor]:
        """Crops, ready to be used by any thread; made on the CPU where the network has taken all memory of the GPU."""
        if together is not None:
            try:
                return together([self.draw(number) for number in numbers])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
        images, labels = zip(*(self.crop_number(number) for number in numbers))
        return torch.stack(images), torch.stack(labels)

    def batches(
        self,
        batch: int,
        start: int,
        *,
        share: tuple[int, int] = (0, 1),
        workers: int = 1,
        device: str = "cpu",
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Batches from step ``start`` on, prepared ahead by threads: ``(batch, C, h, w)`` and ``(batch, h, w)`` uint8.

        ``share`` = (rank, world): this process makes its part of every global batch. ``device``: where crops are
        turned, scaled and varied, ``"cpu"`` or a CUDA GPU, to which then only raw pixels go, and where they are left
        (if it has the memory).
        """
        rank, world = share
        local = batch // world

        if device == "cuda":  # which threads would take for the first
            device = f"cuda:{torch.cuda.current_device()}"

        together = None if device == "cpu" else Together(self.normalisation, self.augmentation, self.crop, device)

        def make(step: int) -> tuple[Tensor, Tensor]:
            first = step * batch + rank * local
            return self._batch(range(first, first + local), together)

        teams = torch.get_num_threads()
        pool = ThreadPoolExecutor(workers, "crops", initializer=_begin_thread, initargs=(device,))
        waiting: list[Future[tuple[Tensor, Tensor]]] = []
        step = start
        try:
            if together is not None:  # it is recorded by this thread, which asks nothing else of the GPU meanwhile
                yield make(step)
                step += 1
            while True:
                while len(waiting) < _AHEAD + workers:
                    waiting.append(pool.submit(make, step))
                    step += 1
                made = waiting.pop(0).result()
                for part in made:
                    if part.is_cuda:  # its memory is not for the next crops before it has been used
                        part.record_stream(torch.cuda.current_stream(device))
                yield made
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(teams)  # threads that begin later take what was set last, in whatever thread


def _begin_thread(device: str) -> None:
    """A second team of threads for crops would fight the network for the cores (half the speed)."""
    torch.set_num_threads(1)
    if device != "cpu":
        # beside the network's own, and before it: a batch is little work, and much waits for it
        beside = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        torch.cuda.set_device(beside.device)
        torch.cuda.set_stream(beside)
