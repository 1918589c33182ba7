"""Cats and cushions, three seeds: the demo's three networks, and what `explain` measures of each.

    python bench/explain_scenes.py            # 3 x 3 trainings, about 25 minutes on 2 cores; goes on where it stopped
    python bench/explain_scenes.py --quick    # does it run?

What must show: the shallow net cannot tell cat from cushion inside (below 0.65 balanced), the full one can (above
0.95); the net without skips finds at least 0.15 less of edges or thin structures; what rises down the encoder; where
of level 0 is above that of the bottleneck. All is kept in OUT/seed-N/; `docs/make_measured_pages.py` makes the page.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import header, table
from explained import explained, kept_json
from whatwhere.data.scenes import CLASSES, THIN, render_scene, write_scenes
from whatwhere.data.sets import ImageSet, from_arrays
from whatwhere.demo import NETWORKS, TRAIN, VAL, demo_plan
from whatwhere.explain.measured import balanced_accuracy
from whatwhere.explain.pixels import regions
from whatwhere.judge import Judge, Scores, compare
from whatwhere.learn.plan import Plan
from whatwhere.network import Model, load_model
from whatwhere.paint import Engine, paint
from whatwhere.verbs import plan, train
from whatwhere.writing import write_json

DISTANCE = 5
"""px from an edge, of the interior pixels on which cat and cushion are told apart."""
UNSEEN = TRAIN + VAL + 100
"""The first of the scenes that no training or validation has seen."""


def trained(folder: Path, seed: int, epochs: float) -> dict[str, Model]:
    """The three networks of one seed: trained, gone on with, or read."""
    data = write_scenes(folder / "scenes", train=TRAIN, val=VAL, seed=seed)
    base = plan(data, epochs=epochs, seed=seed, encoder="plain")
    for name, network in NETWORKS.items():
        _train_one(data, folder / "runs" / name, demo_plan(network, base))
    return {name: load_model(folder / "runs" / name) for name in NETWORKS}


def _train_one(data: Path, run: Path, made: Plan) -> None:
    if (run / "run.json").is_file():
        return
    record = train(data, run, plan=made, resume=(run / "plan.toml").is_file())
    print(f"{run}: {record.seconds:.0f} s, mean IoU {record.mean_iou:.3f} on validation scenes", flush=True)


@torch.inference_mode()
def judged(model: Model, seed: int, count: int) -> tuple[dict[str, float], Scores]:
    """Interior accuracy between cat and cushion, boundary F1 within 1 px, and recall of tails, whiskers and threads."""
    engine, judge = Engine(model), Judge(CLASSES, tolerance=1.0)
    right, total, thin = np.zeros(2), np.zeros(2), np.zeros(2)
    for index in range(UNSEEN, UNSEEN + count):
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
    scores = judge.result()
    return {
        "cat or cushion inside": float(balanced_accuracy(right, total)),
        "boundary F1, 1 px": scores.pooled["mean_boundary_f1"],
        "thin recall": float(thin[0] / max(1, thin[1])),
        "mean IoU": scores.mean_iou,
    }, scores


def shown(measured: dict[str, Any], scores: dict[str, dict[str, float]]) -> dict[str, bool]:
    """What must show, for one seed: ``measured`` is measurements.json of the full network."""
    readings = {one["layer"]["name"]: one for one in measured["levels"]["readings"]}
    down = [one["what"] for one in readings.values() if one["layer"]["role"] in ("encoder", "bottleneck")]
    top, bottom = readings["encoder.0"], readings["bottleneck"]
    lost = [scores["unet"][key] - scores["no-skips"][key] for key in ("boundary F1, 1 px", "thin recall")]
    return {
        "shallow: cat or cushion inside below 0.65": scores["shallow"]["cat or cushion inside"] < 0.65,
        "U-Net: cat or cushion inside above 0.95": scores["unet"]["cat or cushion inside"] > 0.95,
        "no skips: 0.15 less of edges or thin things": max(lost) >= 0.15,
        "what rises down the encoder, within intervals": bottom["what"]["value"] > top["what"]["value"]
        and all(deeper["high"] >= upper["value"] for upper, deeper in pairwise(down)),
        "where of level 0 above that of the bottleneck": top["where"]["value"] > bottom["where"]["value"],
    }


def one_seed(folder: Path, seed: int, epochs: float, images: int, judge: int) -> dict[str, Any]:
    """Everything of one seed; read if it is there."""
    models = trained(folder, seed, epochs)
    if not (folder / "scores.json").is_file():
        both = {name: judged(model, seed, judge) for name, model in models.items()}
        difference = compare(both["unet"][1], both["no-skips"][1], names=("U-Net", "no skips"))
        scores = {name: found for name, (found, _) in both.items()}
        record = {"seed": seed, "epochs": epochs, "scenes": judge, "scores": scores}
        write_json(folder / "scores.json", record | {"difference": difference.to_json()})
    told = {name: explained(model, _scenes(seed, images), folder / name, images) for name, model in models.items()}
    record = kept_json(folder / "scores.json")
    record["shown"] = shown(told["unet"], record["scores"])
    write_json(folder / "scores.json", record)
    return record


def _scenes(seed: int, count: int) -> ImageSet:
    found = [render_scene(seed, UNSEEN + index) for index in range(count)]
    names = [f"scene-{UNSEEN + index:04d}" for index in range(count)]
    return from_arrays([one.image for one in found], [one.labels for one in found], names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=24, help="of the two deep networks; half of it for the shallow")
    parser.add_argument("--images", type=int, default=20, help="scenes to explain with")
    parser.add_argument("--judge", type=int, default=60, help="scenes to judge on")
    parser.add_argument("--out", type=Path, default=Path("bench/out/explain_scenes"))
    parser.add_argument("--quick", action="store_true", help="one seed, hardly trained, in a folder of its own")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.epochs, args.images, args.judge = 1, 0.2, 3, 3
        args.out = args.out.with_name(f"{args.out.name}-quick")
    print(header("scikit-learn"))
    for seed in range(args.seeds):
        record = one_seed(args.out / f"seed-{seed}", seed, args.epochs, args.images, args.judge)
        columns = ["net", *record["scores"]["unet"]]
        rows = [[NETWORKS[name].title, *of.values()] for name, of in record["scores"].items()]
        print(f"\nseed {seed}\n{table(columns, rows)}")
        print(
            "\n".join(f"{'yes' if holds else 'NO '}  {claim}" for claim, holds in record["shown"].items()), flush=True
        )


if __name__ == "__main__":
    main()
