"""The recipe, a choice at a time: every variant over seeds with one budget, scored on val/ by `whatwhere evaluate`.

    python bench/recipe.py isbi_membrane --time 4m --seeds 0 1 2              # goes on where it stopped
    python bench/recipe.py isbi_membrane --epochs 20 --seeds 0 1 2 --jobs 2   # equal steps: the machine may be busy
    python bench/recipe.py camvid --time 10m --seeds 0 --only base "no class weights"
    python bench/recipe.py camvid --hold-out 0006R0 --time 8m --only base "stronger light"    # judged on another drive
    python bench/recipe.py --show                                             # only the table, from what is there
    python bench/recipe.py --quick

A variant is the plan that whatwhere makes for the data with some values changed, or another loss in place of
cross-entropy and Dice. The losses live here and not in the package until one of them is worth its place there. The
weights at the end are scored, not the best on val/. A difference is to be believed where it is the same for all seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import RECORDS, recorded, remember, table
from whatwhere import verbs
from whatwhere.learn.loss import Losses, segmentation_loss
from whatwhere.learn.plan import Plan
from whatwhere.learn.run_folder import RunFolder
from whatwhere.network import UNet
from whatwhere.records import VOID

HERE = Path(__file__).resolve().parent
Loss = Callable[..., Losses]


def focal(logits: Tensor, target: Tensor, **options: Any) -> Losses:
    """Cross-entropy of pixels that are sure already counts less (Lin et al. 2017, arXiv 1708.02002; gamma 2)."""
    plain = segmentation_loss(logits, target, **options)
    each = F.cross_entropy(logits.float(), target.long(), options.get("weights"), ignore_index=VOID, reduction="none")
    certain = torch.exp(-F.cross_entropy(logits.float(), target.long(), ignore_index=VOID, reduction="none"))
    counted = (target != VOID).sum().clamp_min(1)
    changed = ((1 - certain) ** 2 * each).sum() / counted
    return replace(plain, total=plain.total - _cross_entropy(logits, target, options) + changed)


def near_edges(logits: Tensor, target: Tensor, **options: Any) -> Losses:
    """Pixels within 3 px of an edge count five times (after Ronneberger et al. 2015, arXiv 1505.04597)."""
    plain = segmentation_loss(logits, target, **options)
    labels = target.float()[:, None]
    edge = F.max_pool2d(labels, 7, 1, 3) != -F.max_pool2d(-labels, 7, 1, 3)
    weights = (1 + 4 * edge[:, 0].float()) * (target != VOID)
    each = F.cross_entropy(logits.float(), target.long(), options.get("weights"), ignore_index=VOID, reduction="none")
    changed = (each * weights).sum() / weights.sum().clamp_min(1)
    return replace(plain, total=plain.total - _cross_entropy(logits, target, options) + changed)


def cldice(logits: Tensor, target: Tensor, **options: Any) -> Losses:
    """And the soft Dice of centre lines, of all classes but the first (Shit et al. 2021, arXiv 2003.07311)."""
    plain = segmentation_loss(logits, target, **options)
    counted = (target != VOID)[:, None]
    classes = logits.shape[1]
    painted = (logits.float().softmax(1) * counted)[:, 1:]
    truth = F.one_hot(torch.where(counted[:, 0], target, 0).long(), classes).permute(0, 3, 1, 2).float()
    truth = (truth * counted)[:, 1:]
    of_painted, of_truth = _skeleton(painted), _skeleton(truth)
    precision = ((of_painted * truth).sum() + 1) / (of_painted.sum() + 1)
    recall = ((of_truth * painted).sum() + 1) / (of_truth.sum() + 1)
    return replace(plain, total=plain.total + 0.5 * (1 - 2 * precision * recall / (precision + recall)))


class DeepSupervision:
    """And a third of the loss of what lower levels of the decoder say (Lee et al. 2015, arXiv 1409.5185).

    Each of levels 1 and 2 has a 1x1 head and answers for every 2nd, 4th pixel. The heads learn beside the network, a
    step late, and are no part of it: the model file is that of a plain U-Net.
    """

    def __init__(self) -> None:
        self._said: dict[int, Tensor] = {}
        self._heads: dict[int, nn.Conv2d] = {}
        self._optimizers: list[torch.optim.Optimizer] = []
        nn.modules.module.register_module_forward_hook(self._look)

    def _look(self, module: nn.Module, _given: Any, _found: Any) -> None:
        """Finds the network among all modules, once, and listens to its decoder."""
        if isinstance(module, UNet) and module.training and not hasattr(module, "listened_to"):
            module.listened_to = True
            for level in (1, 2):
                if level < module.depth:
                    self._heads[level] = nn.Conv2d(module.channels[level], module.config["classes"], 1)
                    self._optimizers.append(torch.optim.AdamW(self._heads[level].parameters(), 3e-3))
                    module.decoder[level].register_forward_hook(partial(self._keep, level))

    def _keep(self, level: int, module: nn.Module, _given: Any, found: Tensor) -> None:
        if module.training:
            self._said[level] = self._heads[level](found.float())

    def __call__(self, logits: Tensor, target: Tensor, **options: Any) -> Losses:
        for optimizer in self._optimizers:
            optimizer.step()  # by the gradients of the step before
            optimizer.zero_grad(set_to_none=True)
        plain = segmentation_loss(logits, target, **options)
        total = plain.total
        for level, said in self._said.items():
            step = 2**level
            there = target[:, step // 2 :: step, step // 2 :: step]
            total = total + segmentation_loss(said[..., : there.shape[1], : there.shape[2]], there, **options).total / 3
        self._said.clear()
        return replace(plain, total=total)


def _cross_entropy(logits: Tensor, target: Tensor, options: Mapping[str, Any]) -> Tensor:
    return segmentation_loss(logits, target, weights=options.get("weights"), dice_weight=0).total


def _skeleton(masks: Tensor, rounds: int = 5) -> Tensor:
    """Soft centre lines: what opening takes away while a mask is eroded."""

    def eroded(given: Tensor) -> Tensor:
        return torch.minimum(-F.max_pool2d(-given, (3, 1), 1, (1, 0)), -F.max_pool2d(-given, (1, 3), 1, (0, 1)))

    def lines(given: Tensor) -> Tensor:
        return F.relu(given - F.max_pool2d(eroded(given), 3, 1, 1))

    found = lines(masks)
    for _ in range(rounds):
        masks = eroded(masks)
        new = lines(masks)
        found = found + F.relu(new - found * new)
    return found


@dataclass(frozen=True)
class Variant:
    """Values of the plan that are changed, by table and key, and what takes the place of the loss."""

    edits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    loss: Loss | type[DeepSupervision] | None = None


def _training(**edits: Any) -> Variant:
    return Variant({"training": edits})


def _augmentation(**edits: Any) -> Variant:
    return Variant({"augmentation": edits})


VARIANTS = {
    "base": Variant(),
    "no class weights": _training(class_weights=()),
    "no crops by class": _training(class_aware=0.0),
    "balanced, 1e-3": Variant({"network": {"balanced": True}, "training": {"learning_rate": 1e-3}}),
    "not balanced, 3e-3": Variant({"network": {"balanced": False}, "training": {"learning_rate": 3e-3}}),
    "half the rate": _training(learning_rate=1.5e-3),
    "twice the rate": _training(learning_rate=6e-3),
    "a quick rise": _training(warmup=0.05),
    "a quick rise, then a cosine over all the rest": _training(warmup=0.05, cooldown=1.0),
    "a timid encoder": _training(encoder_rate=0.05),
    "a bold encoder": _training(encoder_rate=0.5),
    "no mean": _training(average=0.0),
    "a short mean": _training(average=0.96),
    "cross-entropy alone": _training(dice_weight=0.0),
    "three times Dice": _training(dice_weight=3.0),
    "focal": Variant(loss=focal),
    "edges count more": Variant(loss=near_edges),
    "clDice": Variant(loss=cldice),
    "deep supervision": Variant(loss=DeepSupervision),
    "elastic": _augmentation(elastic=3.0),
    "half the augmentation": _augmentation(scale=0.2, warp=0.25, brightness=0.15, contrast=0.15, blur=0.05, noise=0.05),
    "more augmentation": _augmentation(scale=0.8, warp=0.8, brightness=0.5, contrast=0.5, blur=0.2, noise=0.2),
    "stronger light": _augmentation(brightness=0.6, contrast=0.6, color=0.3),
    "larger crops": _training(crop=352, batch=4),
    "wider scales": _augmentation(scale=1.0),
    "width 8": Variant({"network": {"width": 8}}),
    "width 32": Variant({"network": {"width": 32}}),
    "residual": Variant({"network": {"block": "residual"}}),
}  # fmt: skip


def changed(plan: Plan, variant: Variant) -> Plan:
    parts = {name: replace(getattr(plan, name), **edits) for name, edits in variant.edits.items()}
    return replace(plan, **parts)


def held_out(data: Path, prefix: str, out: Path) -> Path:
    """A data folder of the train/ of another: images whose names begin so (a drive, a patient) are judged, in val/."""
    folder = out / "held_out" / f"{data.name}-{prefix}"
    shutil.rmtree(folder, ignore_errors=True)
    for kind in ("images", "masks"):
        for file in (data / "train" / kind).iterdir():
            side = folder / ("val" if file.name.startswith(prefix) else "train") / kind
            side.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, side)
    shutil.copy(data / "classes.toml", folder)
    return folder


def folder_of(name: str, data: Path, budget: str, seed: int, out: Path) -> RunFolder:
    """Where a run lies."""
    return RunFolder(out / "recipe" / "-".join(f"{data.name} {name} {budget} {seed}".replace(",", "").split()))


def work(name: str, data: Path, time: str, epochs: float | None, seed: int, folder: RunFolder) -> dict[str, Any]:
    """One run in this process, scored. With ``epochs``, the plan for ``time`` goes on for so many."""
    import whatwhere.learn.step as step

    variant = VARIANTS[name]
    if variant.loss is not None:
        made = variant.loss() if isinstance(variant.loss, type) else variant.loss
        step.segmentation_loss = made  # type: ignore[assignment]
    shutil.rmtree(folder.root, ignore_errors=True)  # of a run that was cut off
    plan = changed(verbs.plan(data, time=time, seed=seed), variant)
    if epochs:
        plan = replace(plan, training=replace(plan.training, time="", epochs=epochs))
    record = verbs.train(data, folder.root, plan=plan)
    scores = verbs.evaluate(folder.last, data, split="val")
    return {"mean_iou": scores.mean_iou, "scores": scores.pooled, "steps": record.steps, "seconds": record.seconds}


def report(lines: list[dict[str, Any]]) -> None:
    """A table a data set and budget: means over seeds, and by seed how far from base."""
    for place, budget in dict.fromkeys((line["set"], line["budget"]) for line in lines):
        here = [line for line in lines if (line["set"], line["budget"]) == (place, budget)]
        base = {line["seed"]: line["mean_iou"] for line in here if line["variant"] == "base"}
        rows = []
        for name in VARIANTS:
            runs = [line for line in here if line["variant"] == name]
            if runs:
                off = [f"{line['mean_iou'] - base[line['seed']]:+.3f}" for line in runs if line["seed"] in base]
                steps = round(statistics.fmean(line["steps"] for line in runs))
                mean = statistics.fmean(line["mean_iou"] for line in runs)
                rows.append([name, len(runs), f"{mean:.3f}", ", ".join(off) if name != "base" else "", steps])
        print(f"\n{place}, {budget}\n")
        print(table(["variant", "seeds", "mean IoU", "from base, by seed", "steps"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=["isbi_membrane"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of the data sets")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    parser.add_argument("--record", type=Path, default=RECORDS / "recipe.jsonl")
    parser.add_argument("--time", default="4m", help="of each run")
    parser.add_argument("--epochs", type=float, help="the plan is that for --time, but each run has so many")
    parser.add_argument("--hold-out", metavar="PREFIX", help="train/ alone: what has such names is judged")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, which share the cores; not with --time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--show", action="store_true", help="no runs: only the table")
    parser.add_argument("--quick", action="store_true", help="two short runs, to see that it works")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.budget = f"{options.epochs:g} epochs" if options.epochs else options.time
    if options.jobs > 1 and not options.epochs:
        sys.exit("error: --jobs needs --epochs: runs that share a machine are not equal in time")
    if options.worker:
        name, seed = options.worker
        data = options.data / options.sets[0]
        folder = folder_of(name, data, options.budget, int(seed), options.out)
        made = work(name, data, options.time, options.epochs, int(seed), folder)
        print(json.dumps(made))
        return
    if not options.data.is_dir():
        print(f"skipped: there is no {options.data}; give the folder of the data sets with --data")
        return
    if options.quick:
        options.out, options.only = options.out / "quick", ["base", "clDice"]
        options.time = options.budget = "20s"
        options.record = options.out / "recipe.jsonl"
    if options.hold_out:
        folders = [held_out(options.data / place, options.hold_out, options.out) for place in options.sets]
        options.data, options.sets = folders[0].parent, [folder.name for folder in folders]
    if not options.show:
        make(options, options.record)
    report(recorded(options.record))


def make(options: argparse.Namespace, record: Path) -> None:
    """The runs that the record lacks, each in a process of its own: a seed of all variants before the next seed."""
    wanted = [
        {"set": place, "variant": name, "budget": options.budget, "seed": seed}
        for place in options.sets for seed in options.seeds for name in options.only
    ]  # fmt: skip
    there = recorded(record)
    missing = [key for key in wanted if not any(key.items() <= line.items() for line in there)]
    with ThreadPoolExecutor(options.jobs) as pool:
        for key, made in zip(missing, pool.map(partial(_in_a_process, options), missing)):
            remember(record, key | made)
            print(f"{', '.join(map(str, key.values()))}: {made['mean_iou']:.3f}, {made['steps']} steps", flush=True)


def _in_a_process(options: argparse.Namespace, key: Mapping[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, key["set"], f"--data={options.data}", f"--out={options.out}"]
    command += [f"--time={options.time}", *([f"--epochs={options.epochs}"] if options.epochs else [])]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // options.jobs))} if options.jobs > 1 else {}
    done = subprocess.run(
        [*command, "--worker", key["variant"], str(key["seed"])], check=True, stdout=subprocess.PIPE, text=True,
        env=os.environ | threads,
    )  # fmt: skip
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


if __name__ == "__main__":
    main()
