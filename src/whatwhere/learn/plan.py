"""The plan: everything that decides a training run, with a reason for each choice. TOML, editable.

Knows how a plan is written, read and checked; not how its choices are made (see planning.py).
"""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import tomlkit

from whatwhere.data.augment import Augmentation
from whatwhere.errors import PlanError
from whatwhere.network import known_encoder
from whatwhere.records import Classes, Normalisation, parse_color
from whatwhere.writing import whole_file

T = typing.TypeVar("T")

__all__ = ["NetworkPlan", "Plan", "TrainingPlan", "duration_text", "parse_duration", "read_plan", "write_plan"]


@dataclass(frozen=True)
class NetworkPlan:
    """The arguments of ``network.UNet`` that a plan may choose.

    ``pretrained`` puts ImageNet weights into the encoder before the first step; nothing is read when going on.
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

    def __post_init__(self) -> None:
        _at_least(1, width=self.width, depth=self.depth, repeats=self.repeats, max_width=self.max_width)
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
        _at_least(0, seed=self.seed)
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
        deepest = -(-self.training.crop // 2**self.network.depth)
        if deepest == 1 and self.training.batch == self.training.accumulate:
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
        del network["pretrained"]
        return sizes | network

    def to_json(self) -> dict[str, Any]:
        tables = ("network", "training", "augmentation", "normalisation")
        return {
            "seed": self.seed,
            **{name: asdict(getattr(self, name)) for name in tables},
            "classes": self.classes.to_json(),
            "split": {name: list(names) for name, names in self.split.items()},
            "reasons": dict(self.reasons),
        }

    @property
    def _summary(self) -> str:
        network, training = self.network, self.training
        images = ", ".join(f"{len(names)} {name}" for name, names in self.split.items())
        budget = training.time or f"{training.epochs:g} epochs"
        return (
            f"plan: {self.classes.count} classes; {images}; "
            f"width {network.width}, depth {network.depth}, skips {_shown(network.skips) or 'none'}; "
            f"{budget}, {training.batch} crops of {training.crop} px a step; seed {self.seed}"
        )

    def __str__(self) -> str:
        """Every choice that has a reason, with it; a plan that was read has none, and says its main choices."""
        if not self.reasons:
            return self._summary
        lines = []
        for table in ("network", "training", "augmentation"):
            for key, value in asdict(getattr(self, table)).items():
                reason = self.reasons.get(f"{table}.{key}", "")
                if reason:
                    lines.append(f"{key:>16}  {_shown(value):<14} {reason}")
        for key in ("classes", "normalisation", "split"):
            if key in self.reasons:
                lines.insert(0, f"{key:>16}  {'':<14} {self.reasons[key]}")
        return "\n".join(lines)


def parse_duration(text: str) -> float:
    """Seconds in ``"90s"``, ``"20m"``, ``"1.5h"`` or ``"1h30m"``; ``PlanError`` otherwise.

    >>> parse_duration("1h30m")
    5400.0
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = sum(float(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.replace(" ", "") or seconds <= 0:
        raise PlanError(f"time is {text!r}", "a duration such as 90s, 20m or 1h30m", "")
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


def write_plan(plan: Plan, path: Path | str) -> Path:
    """Writes the plan as TOML with its reasons as comments; at once or not at all."""
    path = Path(path)
    with whole_file(path) as partial:
        partial.write_text(_toml(plan), encoding="utf-8")
    return path


def read_plan(path: Path | str) -> Plan:
    """Reads and checks a plan; ``PlanError`` names the key, its value, and what it should be."""
    path = Path(path)
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PlanError(
            f"there is no file {path}", "a plan", "make one with: whatwhere plan DATA -o plan.toml"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"{path} is not readable TOML ({error})", "a plan as whatwhere plan writes it", "") from error
    try:
        return _plan_from(record)
    except PlanError as error:
        raise PlanError(f"{path}: {error.given}", error.expected, error.remedy) from error


def _plan_from(record: dict[str, Any]) -> Plan:
    _only_known(record, [f.name for f in fields(Plan) if f.name != "reasons"], "the plan")
    split = record.get("split", {})
    if not isinstance(split, dict) or not all(isinstance(names, list) for names in split.values()):
        raise PlanError("split is not a table of lists of names", "train = [...], val = [...]", "")
    _only_known(split, ["train", "val", "test"], "[split]")
    return Plan(
        seed=_value(record.get("seed", 0), int, "seed"),
        classes=_classes_from(record.get("classes", {})),
        normalisation=_record(Normalisation, record.get("normalisation", {}), "normalisation"),
        network=_record(NetworkPlan, record.get("network", {}), "network"),
        training=_record(TrainingPlan, record.get("training", {}), "training"),
        augmentation=_record(Augmentation, record.get("augmentation", {}), "augmentation"),
        split={name: tuple(str(item) for item in names) for name, names in split.items()},
    )


def _classes_from(table: Any) -> Classes:
    if not isinstance(table, dict):
        raise PlanError(f"classes is {table!r}", "a table [classes]", "")
    _only_known(table, ["void", "nearest", "class"], "[classes]")
    entries = table.get("class", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PlanError(f"classes.class is {entries!r}", "a [[classes.class]] table each", "")
    if not entries:
        raise PlanError("[classes] lists no class", "a [[classes.class]] table each, with name, color and values", "")
    for entry in entries:
        _only_known(entry, ["name", "color", "values"], "[[classes.class]]")
    try:
        return Classes.from_json(
            {
                "names": [entry["name"] for entry in entries],
                "colors": [parse_color(entry["color"]) for entry in entries],
                "values": [entry["values"] for entry in entries],
                "void": table.get("void", []),
                "nearest": table.get("nearest", False),
            }
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PlanError(
            f"[[classes.class]] is not right ({error!r})", "name, color '#rrggbb' and values", ""
        ) from error


def _record(kind: type[T], table: Any, where: str) -> T:
    """A frozen record from a TOML table, each value checked against the record's own type hints."""
    assert is_dataclass(kind)
    if not isinstance(table, dict):
        raise PlanError(f"{where} is {table!r}", f"a table [{where}]", "")
    hints = typing.get_type_hints(kind)
    _only_known(table, list(hints), f"[{where}]")
    required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in required if name not in table]
    if missing:
        raise PlanError(f"[{where}] lacks {', '.join(missing)}", "these keys", "make a plan anew, or add them")
    values = {name: _value(value, hints[name], f"{where}.{name}") for name, value in table.items()}
    try:
        return typing.cast(T, kind(**values))
    except ValueError as error:
        raise PlanError(f"[{where}] is not right", str(error), "") from error


def _value(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise PlanError(f"{where} = {value!r}", "one of " + ", ".join(map(repr, typing.get_args(hint))), "")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise PlanError(f"{where} = {value!r}", "a list", "")
        return tuple(_value(item, typing.get_args(hint)[0], where) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise PlanError(f"{where} = {value!r}", f"{_KINDS[hint]}", "")
    return value


_KINDS = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}


def _only_known(table: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise PlanError(f"unknown key {key!r} in {where}", "only known keys", remedy)


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise PlanError(f"{name} = {value}", f"at least {least}", "")


def _within(low: float, high: float, **values: float) -> None:
    for name, value in values.items():
        if not low <= value <= high:
            raise PlanError(f"{name} = {value:g}", f"a number from {low:g} to {high:g}", "")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _toml(plan: Plan) -> str:
    document = tomlkit.document()
    document.add(tomlkit.comment("A whatwhere plan: everything that decides the run. Edit what you like."))
    document["seed"] = plan.seed
    for name in ("network", "training", "augmentation", "normalisation"):
        table = tomlkit.table()
        for key, value in asdict(getattr(plan, name)).items():
            table[key] = list(value) if isinstance(value, tuple) else value
            reason = plan.reasons.get(f"{name}.{key}")
            if reason:
                table[key].comment(reason)
        document[name] = table
    document["classes"] = _toml_classes(plan)
    document["split"] = {name: list(names) for name, names in plan.split.items()}
    return tomlkit.dumps(document)


def _toml_classes(plan: Plan) -> tomlkit.items.Table:
    table = tomlkit.table()
    if plan.reasons.get("classes"):
        table.comment(plan.reasons["classes"])
    table["void"] = [_listed(value) for value in plan.classes.void]
    table["nearest"] = plan.classes.nearest
    entries = tomlkit.aot()
    for name, color, values in zip(plan.classes.names, plan.classes.colors, plan.classes.values):
        entry = tomlkit.table()
        entry["name"] = name
        entry["color"] = "#{:02x}{:02x}{:02x}".format(*color)
        entry["values"] = [_listed(value) for value in values]
        entries.append(entry)
    table["class"] = entries
    return table


def _listed(value: int | tuple[int, int, int]) -> int | list[int]:
    return list(value) if isinstance(value, tuple) else value
