"""segmentation_models.pytorch: ``Unet`` with a resnet34, by the recipe of the examples in its repository.

From them (examples/binary_segmentation_buildings.py, which runs on a CPU, and camvid_segmentation_multiclass.ipynb):
batches of 8, random crops of 320x320 and horizontal flips, the encoder's mean and deviation, Dice loss, Adam at 2e-4,
half a cosine down to 1e-5 over the run; whole images when predicting, padded to a multiple of 32. Differs: the
encoder starts from random weights (``encoder_weights=None``), for its ImageNet weights are downloaded from a hub; the
images lie in memory, without worker processes; the photometric augmentation by another package is left out.
"""

from __future__ import annotations

import math

import numpy as np
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from peers.clock import Clock
from peers.task import Task, read_image, read_mask

__all__ = ["SmpUnet"]

BATCH, CROP = 8, 320
HIGHEST, LOWEST = 2e-4, 1e-5
PERIOD = 32
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of the channels, in [0, 1]: what ``get_preprocessing_params`` gives, which asks a hub for them."""


class SmpUnet:
    """A training run; then a way to predict."""

    def __init__(self, task: Task, seed: int) -> None:
        torch.manual_seed(seed)
        self._random = np.random.default_rng(seed)
        self.network = smp.Unet("resnet34", encoder_weights=None, in_channels=task.channels, classes=len(task.classes))
        self._loss = smp.losses.DiceLoss(smp.losses.MULTICLASS_MODE, from_logits=True, ignore_index=task.void)
        self._optimizer = torch.optim.Adam(self.network.parameters(), HIGHEST)
        self._images = [read_image(pair.image) for pair in task.train]
        self._masks = [read_mask(pair.mask) for pair in task.train]
        mean, std = (torch.tensor(constant).view(-1, 1, 1) for constant in IMAGENET)
        grey = task.channels == 1
        self._mean, self._std = (mean.mean(), std.mean()) if grey else (mean, std)

    def train(self, clock: Clock) -> None:
        self.network.train()
        going = clock.begin(self.network)
        while going:
            images, target = self._batch()
            rate = LOWEST + (HIGHEST - LOWEST) * (1 + math.cos(math.pi * clock.progress)) / 2
            self._optimizer.param_groups[0]["lr"] = rate
            self._optimizer.zero_grad()
            self._loss(self.network(images), target).backward()
            self._optimizer.step()
            going = clock.goes_on(self.network)

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``(H, W, C)`` to ``(H, W)`` class ids."""
        height, width = image.shape[:2]
        missing = (0, -width % PERIOD, 0, -height % PERIOD)
        with torch.no_grad():
            logits = self.network.eval()(F.pad(self._tensor(image)[None], missing))[0, :, :height, :width]
        return logits.argmax(0).numpy().astype(np.uint8)

    def _tensor(self, image: NDArray[np.uint8]) -> Tensor:
        raw = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
        return (raw - self._mean) / self._std

    def _batch(self) -> tuple[Tensor, Tensor]:
        crops = [self._crop(int(index)) for index in self._random.integers(len(self._images), size=BATCH)]
        return torch.stack([image for image, _ in crops]), torch.stack([mask for _, mask in crops])

    def _crop(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self._images[index], self._masks[index]
        y, x = (int(self._random.integers(max(1, side - CROP + 1))) for side in mask.shape)
        window = np.s_[y : y + CROP, x : x + CROP]
        image, mask = image[window], mask[window]
        if self._random.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        return self._tensor(image), torch.from_numpy(mask.astype(np.int64))
