"""Cats and cushions, three seeds: full, skipless and shallow nets, and what `explain` measures of them.

    python bench/explain_scenes.py --out scenes.json            # about 3 x 3 trainings of 4 minutes on 2 cores
    python bench/explain_scenes.py --seeds 1 --time 20s --train 40 --images 4   # does it run?
    python bench/explain_scenes.py --models FULL NOSKIPS SHALLOW   # nets that are trained already

What must show: the shallow net cannot tell cat from cushion inside (below 0.65 balanced), the full one can (above
0.95); the net without skips loses at least 0.15 of the thin structures; what rises down the encoder; where of level 0
is above that of the bottleneck.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from common import header, table
from whatwhere.data.augment import Augmentation
from whatwhere.data.scenes import CLASSES, THIN, render_scene
from whatwhere.data.sets import ImageSet, from_arrays
from whatwhere.explain import Explanation, explain
from whatwhere.explain.measured import balanced_accuracy
from whatwhere.explain.pixels import regions
from whatwhere.judge import Judge
from whatwhere.learn.plan import NetworkPlan, Plan, TrainingPlan
from whatwhere.learn.train import train
from whatwhere.network import Model, load_model
from whatwhere.paint import Engine, paint
from whatwhere.records import Normalisation

NETS = {
    "full": NetworkPlan(width=16, depth=4, skips=(0, 1, 2, 3)),
    "no skips": NetworkPlan(width=16, depth=4, skips=()),
    "shallow": NetworkPlan(width=32, depth=1, skips=(0,)),
}
DISTANCE = 5
"""px from an edge, of the interior pixels on which cat and cushion are told apart."""


def scenes(seed: int, start: int, count: int) -> ImageSet:
    found = [render_scene(seed, start + index) for index in range(count)]
    names = [f"scene-{start + index:04d}" for index in range(count)]
    return from_arrays([one.image for one in found], [one.labels for one in found], names)


def train_one(network: NetworkPlan, seed: int, time: str, count: int, folder: Path) -> Model:
    images = np.stack([render_scene(seed, index).image for index in range(min(count, 60))]).reshape(-1, 3)
    normalisation = Normalisation(tuple(images.mean(0).tolist()), tuple(images.std(0).tolist()))
    plan = Plan(
        seed, CLASSES, normalisation, network, TrainingPlan(time=time, crop=128, batch=16, learning_rate=3e-3),
        Augmentation(rotation=8.0), {},
    )  # fmt: skip
    train(plan, {"train": scenes(seed, 0, count), "val": scenes(seed, count, 8)}, folder)
    return load_model(folder)


@torch.inference_mode()
def judged(model: Model, seed: int, start: int, count: int) -> dict[str, float]:
    """Interior accuracy between cat and cushion, boundary F1 within 1 px, and recall of tails, whiskers and threads."""
    engine, judge = Engine(model), Judge(CLASSES, tolerance=1.0)
    right, total, thin = np.zeros(2), np.zeros(2), np.zeros(2)
    for index in range(start, start + count):
        scene = render_scene(seed, index)
        painting = paint(engine, scene.image, probabilities=True)
        assert painting.probabilities is not None
        judge.add(str(index), scene.labels, painting.labels)
        inside = regions(scene.labels, DISTANCE).interior
        says_cat = painting.probabilities[1] > painting.probabilities[2]
        for place, class_id in enumerate((1, 2)):
            mask = inside & (scene.labels == class_id)
            right[place] += (says_cat[mask] == (class_id == 1)).sum()
            total[place] += mask.sum()
        fine = scene.parts == THIN
        thin += (painting.labels[fine] == scene.labels[fine]).sum(), fine.sum()
    return {
        "cat or cushion inside": float(balanced_accuracy(right, total)),
        "boundary F1, 1 px": judge.result().pooled["mean_boundary_f1"],
        "thin recall": float(thin[0] / max(1, thin[1])),
        "mean IoU": judge.result().mean_iou,
    }


def verdicts(full: Explanation, scores: dict[str, dict[str, float]]) -> dict[str, bool]:
    """What must show, for one seed."""
    assert full.levels is not None
    down = [one.what for one in full.levels.readings if one.layer.role in ("encoder", "bottleneck")]
    rising = all((deeper.high or 0) >= (upper.value or 0) for upper, deeper in pairwise(down))  # within intervals
    lost = [scores["full"][key] - scores["no skips"][key] for key in ("boundary F1, 1 px", "thin recall")]
    top, bottom = full.levels["encoder.0"].where, full.levels["bottleneck"].where
    return {
        "shallow below 0.65 inside": scores["shallow"]["cat or cushion inside"] < 0.65,
        "full above 0.95 inside": scores["full"]["cat or cushion inside"] > 0.95,
        "no skips lose 0.15 at edges or thin things": max(lost) >= 0.15,
        "what rises down the encoder": rising,
        "where of level 0 above the bottleneck's": (top.value or 0) > (bottom.value or 0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time", default="4m", help="of each training")
    parser.add_argument("--train", type=int, default=240, help="scenes to train on")
    parser.add_argument("--images", type=int, default=20, help="scenes to explain with")
    parser.add_argument("--judge", type=int, default=60, help="scenes to judge on")
    parser.add_argument("--models", nargs=3, type=Path, metavar=("FULL", "NOSKIPS", "SHALLOW"))
    parser.add_argument("--out", type=Path, help="JSON of everything; reports are written beside it")
    args = parser.parse_args()
    print(header("scikit-learn"))
    records: list[dict[str, Any]] = []
    for seed in [0] if args.models else range(args.seeds):
        with TemporaryDirectory() as folder:
            models = (
                dict(zip(NETS, map(load_model, args.models), strict=True))
                if args.models
                else {
                    name: train_one(net, seed, args.time, args.train, Path(folder, name.replace(" ", "-")))
                    for name, net in NETS.items()
                }
            )
        start = args.train + 100  # scenes that no training or validation has seen
        scores = {name: judged(model, seed, start, args.judge) for name, model in models.items()}
        told = {}
        for name, model in models.items():
            place = args.out.with_suffix("") / f"{name.replace(' ', '-')}-{seed}" if args.out else None
            told[name] = explain(model, scenes(seed, start, args.images), images=args.images, out=place)
        checks = verdicts(told["full"], scores)
        print(f"\nseed {seed}")
        print(table(["net", *scores["full"]], [[name, *of.values()] for name, of in scores.items()]))
        print(told["full"].levels)
        print("\n".join(f"{'yes' if shown else 'NO '}  {what}" for what, shown in checks.items()))
        explained = {name: one.to_json() for name, one in told.items()}
        records.append({"seed": seed, "scores": scores, "shown": checks, "explained": explained})
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
