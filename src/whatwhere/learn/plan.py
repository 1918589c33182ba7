"""The plan: everything that decides a training run, with a reason for each choice.

Knows what a plan may say; not how its choices are made (`planning`), nor how it is written and read (`plan_file`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from whatwhere.data.augment import Augmentation
from whatwhere.errors import PlanError
from whatwhere.network import known_encoder
from whatwhere.records import Classes, Normalisation

__all__ = ["DEEPEST", "NetworkPlan", "Plan", "TrainingPlan", "check_seed", "duration_text", "parse_duration"]


DEEPEST = 30
"""How often a billion pixels can be halved."""


@dataclass(frozen=True)
class NetworkPlan:
    """The arguments of ``network.UNet`` that a plan may choose.

    ``pretrained`` puts ImageNet weights into the encoder before the first step; nothing is read when going on.
    ``balanced`` then makes the ways up as loud as the skips beside them (see ``network.balance``). With ``module``, the
    name of a network that the caller gives, nothing else counts.
    """

    width: int = 32
    depth: int = 4
    block: Literal["plain", "residual"] = "plain"
    repeats: int = 1
    up: Literal["transpose", "bilinear"] = "transpose"
    padding: Literal["same", "valid"] = "same"
    skips: tuple[int, ...] = (0, 1, 2, 3)
    max_width: int = 512
    encoder: str = "plain"
    pretrained: bool = False
    balanced: bool = False
    module: str = ""

    def __post_init__(self) -> None:
        others = [f.name for f in fields(self) if f.name != "module" and getattr(self, f.name) != f.default]
        if self.module and others:
            raise PlanError(f"module = {self.module!r} and {', '.join(others)}", "module alone", "")
        _at_least(1, width=self.width, repeats=self.repeats, max_width=self.max_width)
        _within(1, DEEPEST, depth=self.depth)
        if any(level not in range(self.depth) for level in self.skips):
            raise PlanError(
                f"skips = {list(self.skips)}", f"levels from 0 to {self.depth - 1}, as depth is {self.depth}", ""
            )
        if self.padding == "valid" and self.block == "residual":
            raise PlanError("padding = 'valid' and block = 'residual'", "one of them at most", "use padding = 'same'")
        if self.encoder == "plain" and self.pretrained:
            raise PlanError(
                "pretrained = true and encoder = 'plain'", "an encoder with weights", "set pretrained = false"
            )
        if self.balanced and not self.pretrained:
            raise PlanError(
                "balanced = true and pretrained = false", "balanced with ImageNet weights only", "set balanced = false"
            )
        if not known_encoder(self.encoder):
            raise PlanError(f"encoder = {self.encoder!r}", "'plain', 'efficientnet-lite0' or 'timm:NAME'", "")
        if self.encoder != "plain" and (self.depth not in range(2, 6) or self.padding != "same"):
            raise PlanError(
                f"encoder = {self.encoder!r}, depth = {self.depth} and padding = {self.padding!r}",
                "depth 2 to 5 and padding = 'same'",
                "",
            )


@dataclass(frozen=True)
class TrainingPlan:
    """How the network is trained.

    Attributes:
        time: wall time of the whole run, such as ``"20m"``; ``""`` when ``epochs`` decides.
        epochs: passes over the training images' pixels; 0 when ``time`` decides.
        crop, batch: squares of ``crop`` pixels, ``batch`` of them a step.
        accumulate: a step's batch is computed in this many parts (less memory, same step).
        encoder_rate: what a pretrained encoder gets of the learning rate; the rest of the network gets all of it.
        learning_rate, weight_decay: AdamW.
        warmup, cooldown: the shares of the run in which the rate rises from nearly zero, and at its end falls along a
            cosine to zero.
        class_weights: what a pixel of each class counts for in the cross-entropy; empty for all the same.
        dice_weight: weight of the soft Dice beside cross-entropy.
        class_aware: share of crops centred on a class drawn uniformly.
        average: decay of the exponential moving average of the weights, which is what is saved and judged.
        device, precision: ``"auto"`` chooses for the machine.
        compiled: whether torch compiles the network's code first; ``"auto"`` does so on a GPU, for a long run.
    """

    time: str = ""
    epochs: float = 0.0
    crop: int = 256
    batch: int = 8
    accumulate: int = 1
    learning_rate: float = 2e-3
    encoder_rate: float = 0.2
    weight_decay: float = 0.01
    warmup: float = 0.05
    cooldown: float = 1.0
    class_weights: tuple[float, ...] = ()
    dice_weight: float = 1.0
    class_aware: float = 0.5
    average: float = 0.99
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compiled: Literal["auto", "yes", "no"] = "auto"

    def __post_init__(self) -> None:
        _at_least(1, crop=self.crop, batch=self.batch, accumulate=self.accumulate)
        _within(0, 1, warmup=self.warmup, cooldown=self.cooldown, class_aware=self.class_aware, average=self.average)
        _within(0, 1, encoder_rate=self.encoder_rate)
        _within(0, 10, learning_rate=self.learning_rate, weight_decay=self.weight_decay, dice_weight=self.dice_weight)
        _within(0, 1e6, epochs=self.epochs)
        for weight in self.class_weights:
            _within(0.01, 100, class_weights=weight)
        if bool(self.time) == (self.epochs > 0):
            raise PlanError(
                f"time = {self.time!r} and epochs = {self.epochs:g}",
                "exactly one of them to be given",
                "empty the other",
            )
        if self.time:
            parse_duration(self.time)
        if self.batch % self.accumulate:
            raise PlanError(
                f"batch = {self.batch} and accumulate = {self.accumulate}", "a batch that divides evenly", ""
            )

    @property
    def seconds(self) -> float | None:
        return parse_duration(self.time) if self.time else None

    def steps(self, pixels: int) -> int:
        """Whose crops have as many pixels as ``epochs`` times all images together; at least one.

        Crops are drawn equally from all images, whatever their size: small ones are seen more often than that, and
        large ones less.

        >>> TrainingPlan(epochs=8, crop=128, batch=16).steps(6 * 64 * 64)
        1
        """
        return max(1, round(self.epochs * pixels / (self.batch * self.crop**2)))


@dataclass(frozen=True)
class Plan:
    """A whole plan.

    Attributes:
        seed: of everything random.
        classes, normalisation: of the data set.
        network, training, augmentation: see there.
        split: for ``train``, ``val`` and perhaps ``test`` the names of the images.
        reasons: ``"network.width"`` -> one line.
    """

    seed: int
    classes: Classes
    normalisation: Normalisation
    network: NetworkPlan
    training: TrainingPlan
    augmentation: Augmentation
    split: Mapping[str, tuple[str, ...]]
    reasons: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.network.encoder == "efficientnet-lite0" and self.normalisation.channels != 3:
            raise PlanError(
                f"encoder = 'efficientnet-lite0' and images of {self.normalisation.channels} channels",
                "images of 3 channels",
                "use encoder = 'plain' and pretrained = false",
            )
        weights = len(self.training.class_weights)
        if weights not in (0, self.classes.count):
            raise PlanError(
                f"class_weights has {weights} numbers and there are {self.classes.count} classes",
                "one for each class, or none",
                "class_weights = []",
            )
        if 2**self.network.depth > self.training.crop and not self.network.module:
            raise PlanError(
                f"crop = {self.training.crop} with depth = {self.network.depth}, which halves it to less than a pixel",
                f"a crop of at least {2**self.network.depth} px, or a depth of "
                f"{self.training.crop.bit_length() - 1} at most",
                "use a smaller depth or a larger crop",
            )
        deepest = -(-self.training.crop // 2**self.network.depth)
        if deepest == 1 and not self.network.module and self.training.batch == self.training.accumulate:
            raise PlanError(
                f"crop = {self.training.crop} and batch = {self.training.batch} with depth = {self.network.depth}",
                "more than one pixel at the bottom of the network, for batch norm",
                "use a larger crop or batch",
            )

    @property
    def network_config(self) -> dict[str, Any]:
        """The arguments of ``network.UNet``."""
        sizes = {"in_channels": self.normalisation.channels, "classes": self.classes.count}
        network = asdict(self.network)
        del network["pretrained"], network["balanced"], network["module"]
        return sizes | network

    def to_json(self) -> dict[str, Any]:
        tables = ("network", "training", "augmentation", "normalisation")
        return {
            "seed": self.seed,
            **{name: self.table(name) for name in tables},
            "classes": self.classes.to_json(),
            "split": {name: list(names) for name, names in self.split.items()},
            "reasons": dict(self.reasons),
        }

    def table(self, name: str) -> dict[str, Any]:
        """What is said under ``network``, ``training``, ``augmentation`` or ``normalisation``."""
        if name == "network" and self.network.module:
            return {"module": self.network.module}
        found = asdict(getattr(self, name))
        found.pop("module", None)
        return found

    @property
    def _summary(self) -> str:
        network, training = self.network, self.training
        shape = f"width {network.width}, depth {network.depth}, skips {_shown(network.skips) or 'none'}"
        images = ", ".join(f"{len(names)} {name}" for name, names in self.split.items())
        budget = training.time or f"{training.epochs:g} epochs"
        return (
            f"plan: {self.classes.count} classes; {images}; "
            f"{network.module or shape}; "
            f"{budget}, {training.batch} crops of {training.crop} px a step; seed {self.seed}"
        )

    def __str__(self) -> str:
        """Every choice that has a reason, with it; a plan that was read has none, and says its main choices."""
        if not self.reasons:
            return self._summary
        lines = []
        for table in ("network", "training", "augmentation"):
            for key, value in self.table(table).items():
                reason = self.reasons.get(f"{table}.{key}", "")
                if reason:
                    lines.append(f"{key:>16}  {_shown(value):<14} {reason}")
        for key in ("classes", "normalisation", "split"):
            if key in self.reasons:
                lines.insert(0, f"{key:>16}  {'':<14} {self.reasons[key]}")
        return "\n".join(lines)


def check_seed(seed: int) -> None:
    """``PlanError`` for a seed that is not one of NumPy's and of torch's generators alike."""
    _within(0, 2**32 - 1, seed=seed)


def parse_duration(text: str) -> float:
    """Seconds in ``"90s"``, ``"20m"``, ``"1.5h"`` or ``"1h30m"``, one at least; ``PlanError`` otherwise.

    >>> parse_duration("1h30m")
    5400.0
    """
    text = str(text)  # a number is told what a duration is
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = sum(float(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.replace(" ", "") or not 1 <= seconds < math.inf:
        raise PlanError(f"time is {text!r}", "a duration such as 90s, 20m or 1h30m, a second at least", "")
    return seconds


def duration_text(seconds: float) -> str:
    """Seconds as a plan writes them.

    >>> duration_text(5400), duration_text(90)
    ('1h30m', '90s')
    """
    whole = round(seconds)
    if whole % 60:
        return f"{whole}s"
    hours, minutes = divmod(whole // 60, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise PlanError(f"{name} = {value}", f"at least {least}", "")


def _within(low: float, high: float, **values: float) -> None:
    for name, value in values.items():
        if not low <= value <= high:
            raise PlanError(f"{name} = {value:.12g}", f"a number from {low:.12g} to {high:.12g}", "")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
