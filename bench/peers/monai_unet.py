"""MONAI: ``BasicUNet`` as it comes, or ``DynUNet``, by its 2-D tutorial (2d_segmentation/torch/unet_training_dict.py).

From it: ScaleIntensity, two images a batch with four crops of 96x96 each around labelled and other pixels, rotations by
quarter turns, Adam at 1e-3 without a schedule, and sliding windows of 96x96 when predicting. Differs: DiceCELoss over a
softmax in place of a sigmoid's Dice, for there may be more than two classes; void is one more class, which is never
painted; the images lie in memory, and two worker processes (not four) stay from epoch to epoch. ``DynUNet`` has no
2-D tutorial and no shape of its own: filters of 3x3 on five levels, each of half the size of the one above, which is as
deep as crops of 96x96 go in halves, and all else as it comes (32 to 512 channels, instance norm).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from monai.data import DataLoader, Dataset, list_data_collate
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet, DynUNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    RandCropByPosNegLabeld,
    RandRotate90d,
    ScaleIntensity,
    ScaleIntensityd,
)
from monai.utils import set_determinism
from numpy.typing import NDArray
from torch import Tensor, nn

from peers.clock import Clock
from peers.task import Task, read_image, read_mask

__all__ = ["MonaiUnet", "basic", "dynamic"]

ROI = (96, 96)


def basic(channels: int, outputs: int) -> nn.Module:
    return BasicUNet(spatial_dims=2, in_channels=channels, out_channels=outputs)


def dynamic(channels: int, outputs: int) -> nn.Module:
    levels = 5
    halved = [2] * (levels - 1)
    return DynUNet(2, channels, outputs, kernel_size=[3] * levels, strides=[1, *halved], upsample_kernel_size=halved)


class MonaiUnet:
    """A training run; then a way to predict."""

    def __init__(self, task: Task, seed: int, make: Callable[[int, int], nn.Module]) -> None:
        set_determinism(seed)
        self._classes = len(task.classes)
        outputs = self._classes + (task.void is not None)
        self.network = make(task.channels, outputs)
        self._loss = DiceCELoss(to_onehot_y=True, softmax=True)
        self._optimizer = torch.optim.Adam(self.network.parameters(), 1e-3)
        self._loader = loader(task)

    def train(self, clock: Clock) -> None:
        self.network.train()
        batches = self._batches()
        going = clock.begin(self.network)
        while going:
            images, target = next(batches)
            self._optimizer.zero_grad()
            self._loss(self.network(images), target).backward()
            self._optimizer.step()
            going = clock.goes_on(self.network)

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``(H, W, C)`` to ``(H, W)`` class ids."""
        batch = ScaleIntensity()(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        with torch.no_grad():
            logits = sliding_window_inference(batch, ROI, 4, self.network.eval())
        return torch.as_tensor(logits)[0, : self._classes].argmax(0).numpy().astype(np.uint8)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            for batch in self._loader:
                yield batch["img"].as_tensor(), batch["seg"].as_tensor()


def loader(task: Task) -> DataLoader:
    """Crops of the training images, without end if asked again and again."""
    files = [{"img": read_image(pair.image), "seg": read_mask(pair.mask)[..., None]} for pair in task.train]
    both = ["img", "seg"]
    transforms = Compose([
        EnsureChannelFirstd(both, channel_dim=-1),
        ScaleIntensityd("img"),
        RandCropByPosNegLabeld(both, label_key="seg", spatial_size=ROI, pos=1, neg=1, num_samples=4),
        RandRotate90d(both, prob=0.5, spatial_axes=(0, 1)),
    ])  # fmt: skip
    return DataLoader(
        Dataset(files, transforms), batch_size=2, shuffle=True, num_workers=2, persistent_workers=True,
        collate_fn=list_data_collate,
    )  # fmt: skip
