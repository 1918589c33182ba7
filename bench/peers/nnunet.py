"""nnU-Net v2, configuration 2d: its own fingerprint, planner, preprocessing, trainer and predictor, on the CPU.

Fingerprint, planning and preprocessing are in the clock; writing the data in its format is not. All training images
train (fold "all"), as for everybody. Differs from its defaults, in its favour: the learning rate falls over the
minutes as it would over 1000 epochs, no time goes to validation, and preprocessing takes two processes, as there are
cores. Void is its "ignore" label. Its planner aims at a GPU of 8 GB, so a step takes long here; ``batch`` replaces
the planned batch, for a run that makes more steps of the same network.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from peers.clock import Clock
from peers.task import Task, read_image, read_mask

__all__ = ["NnUnet", "write_raw"]

NUMBER, DATASET = 1, "Dataset001_equal"
PLANS = "nnUNetPlans"
RATE, POWER = 1e-2, 0.9


def write_raw(task: Task, root: Path) -> None:
    """The training images as nnU-Net wants them, and the places it is told by its environment variables."""
    raw = root / "raw" / DATASET
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for pair in task.train:
        Image.fromarray(read_image(pair.image).squeeze()).save(raw / "imagesTr" / f"{pair.image.stem}_0000.png")
        # not the file itself: it would take a palette for colours
        Image.fromarray(read_mask(pair.mask)).save(raw / "labelsTr" / f"{pair.image.stem}.png")
    labels = {"background" if value == 0 else name: value for value, name in enumerate(task.classes)}
    if task.void is not None:
        labels["ignore"] = task.void
    channels = {"0": "R", "1": "G", "2": "B"} if task.channels == 3 else {"0": "grey"}
    record = {"channel_names": channels, "labels": labels, "numTraining": len(task.train), "file_ending": ".png"}
    (raw / "dataset.json").write_text(json.dumps(record), encoding="utf-8")


def tell_places(root: Path) -> None:
    for variable, folder in (("nnUNet_raw", "raw"), ("nnUNet_preprocessed", "done"), ("nnUNet_results", "results")):
        os.environ[variable] = str(root.absolute() / folder)


class NnUnet:
    """A training run; then a way to predict.

    Args:
        root: where :func:`write_raw` wrote.
        batch: instead of the planned batch.
    """

    def __init__(self, root: Path, seed: int, batch: int | None = None) -> None:
        tell_places(root)
        torch.manual_seed(seed)
        np.random.seed(seed)  # what its loaders draw from
        self._trainer = trainer(planned(batch))
        self._trainer.initialize()
        self.network = self._trainer.network

    def train(self, clock: Clock) -> None:
        trainer = self._trainer
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        going = clock.begin(self.network)
        while going:
            trainer.optimizer.param_groups[0]["lr"] = RATE * (1 - clock.progress) ** POWER
            trainer.train_step(next(trainer.dataloader_train))
            going = clock.goes_on(self.network)
        for batches in (trainer.dataloader_train, trainer.dataloader_val):
            finish = getattr(batches, "_finish", None)  # where worker processes make the batches
            if finish is not None:
                finish()
        trainer.set_deep_supervision_enabled(False)

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``(H, W, C)`` to ``(H, W)`` class ids, by its predictor as it comes: half steps, Gaussian, mirrored."""
        array = image.transpose(2, 0, 1)[:, None].astype(np.float32)
        painted = self._predictor().predict_single_npy_array(array, {"spacing": (999, 1, 1)})
        return np.asarray(painted)[0].astype(np.uint8)

    def _predictor(self) -> Any:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        trainer = self._trainer
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.manual_initialization(
            self.network.eval(), trainer.plans_manager, trainer.configuration_manager, [self.network.state_dict()],
            trainer.dataset_json, "nnUNetTrainer", trainer.inference_allowed_mirroring_axes,
        )  # fmt: skip
        return predictor


def planned(batch: int | None) -> dict[str, Any]:
    """Fingerprint, plan and preprocess; returns the plans."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    extract_fingerprints([NUMBER], num_processes=2)
    plan_experiments([NUMBER])
    preprocess([NUMBER], PLANS, configurations=("2d",), num_processes=(2,))
    plans: dict[str, Any] = json.loads(folder().joinpath(f"{PLANS}.json").read_text(encoding="utf-8"))
    if batch is not None:
        plans["configurations"]["2d"]["batch_size"] = batch
    return plans


def trainer(plans: dict[str, Any]) -> Any:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    described = json.loads(folder().joinpath("dataset.json").read_text(encoding="utf-8"))
    plans = plans | {"continue_training": False}
    return nnUNetTrainer(plans, "2d", "all", described, device=torch.device("cpu"))


def folder() -> Path:
    return Path(os.environ["nnUNet_preprocessed"]) / DATASET  # noqa: SIM112 (its own spelling)
