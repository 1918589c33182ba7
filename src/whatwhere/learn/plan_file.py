"""The plan as a file: TOML that people read and edit, with a comment for every choice. Knows what a plan may say."""

from __future__ import annotations

import difflib
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import tomlkit

from whatwhere.data.augment import Augmentation
from whatwhere.errors import PlanError
from whatwhere.learn.plan import DEEPEST, NetworkPlan, Plan, TrainingPlan
from whatwhere.records import Classes, Normalisation, color_text, parse_color
from whatwhere.writing import whole_file

__all__ = ["network_with", "read_plan", "write_plan"]

T = typing.TypeVar("T")

_MEANINGS = {
    "network.block": "plain or residual",
    "network.repeats": "blocks at each encoder level below the top",
    "network.up": "transpose or bilinear",
    "network.padding": "same, or valid: no padding, the image is mirrored at its edges",
    "network.skips": "the levels that get a skip, such as [0, 1]; 0 is the finest",
    "network.max_width": "channels at most, however deep",
    "network.pretrained": "begins with ImageNet weights",
    "network.balanced": "upsampling layers are initialised to the scale of the skip; for ImageNet weights in few steps",
    "training.time": "wall time of the whole run, such as 20m; empty where epochs decide",
    "training.epochs": "passes over the training images; 0 where time decides",
    "training.accumulate": "the batch is computed in so many parts: less memory, the same step",
    "training.encoder_rate": "what ImageNet weights get of the learning rate",
    "training.weight_decay": "AdamW",
    "training.dice_weight": "of soft Dice beside the cross-entropy",
    "training.device": "auto, cpu, cuda or mps",
    "training.precision": "auto, float32 or bfloat16",
    "training.compiled": "auto (on a GPU, for a long run), yes or no: torch compiles the network's code first",
    "augmentation.flip_horizontal": "left and right",
    "augmentation.flip_vertical": "top and bottom",
    "augmentation.quarter_turns": "by 90 degrees",
    "augmentation.rotation": "degrees, at most",
    "augmentation.scale": "objects from 1/(1+scale) to 1+scale of their size",
    "augmentation.elastic": "smooth bending, px",
    "augmentation.warp": "share of crops that are turned, scaled and bent",
    "augmentation.brightness": "largest shift, in standard deviations of the data set",
    "augmentation.contrast": "by factors from 1/(1+contrast) to 1+contrast",
    "augmentation.color": "largest shift of each channel by itself, in standard deviations",
    "augmentation.blur": "share of crops",
    "augmentation.noise": "share of crops",
    "normalisation.mean": "of each channel, in the units of the files",
    "normalisation.std": "of each channel, in the units of the files",
    "normalisation.dtype": "of the image files",
}
"""Said of a choice that has no reason of its own."""


_CLASS_KEYS = ["name", "color", "values"]
_CLASS_WORDS = "name, color '#rrggbb' and values"


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
        record = tomllib.loads(path.read_text(encoding="utf-8-sig"))
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


def network_with(plan: Plan, changes: Mapping[str, Any]) -> NetworkPlan:
    """The plan's network with other values, checked as if they stood in its file, where skips may be ``"all"``.

    Raises:
        PlanError: a key that no network has, or a value that can't be.
    """
    return _record(NetworkPlan, _all_skips(plan.table("network") | dict(changes)), "network")


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
        network=_record(NetworkPlan, _all_skips(record.get("network", {})), "network"),
        training=_record(TrainingPlan, record.get("training", {}), "training"),
        augmentation=_record(Augmentation, record.get("augmentation", {}), "augmentation"),
        split={name: tuple(str(item) for item in names) for name, names in split.items()},
    )


def _all_skips(network: Any) -> Any:
    """The table with ``skips = "all"``, or none, written out: who edits the depth alone means that."""
    if not isinstance(network, dict) or "module" in network or network.get("skips", "all") != "all":
        return network
    depth = network.get("depth", NetworkPlan.depth)
    return network | {"skips": list(range(min(depth, DEEPEST)))} if isinstance(depth, int) else network


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
        _only_known(entry, _CLASS_KEYS, "[[classes.class]]")
        if missing := [key for key in _CLASS_KEYS if key not in entry]:
            raise PlanError(f"[[classes.class]] {entry.get('name', '')!r} lacks {', '.join(missing)}", _CLASS_WORDS, "")
    try:
        return Classes.from_json(
            {
                "names": [entry["name"] for entry in entries],
                "colors": [parse_color(entry["color"]) for entry in entries],
                "values": [entry["values"] for entry in entries],
                "void": table.get("void", []),
                "nearest": _value(table.get("nearest", False), bool, "classes.nearest"),
            }
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise PlanError(f"[[classes.class]] is not right ({error})", _CLASS_WORDS, "") from error


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
        raise PlanError(f"[{where}] is not right: {error}", "", "") from error


def _value(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise PlanError(f"{where} = {value!r}", "one of " + ", ".join(map(repr, typing.get_args(hint))), "")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
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


def _toml(plan: Plan) -> str:
    document = tomlkit.document()
    document.add(tomlkit.comment("A whatwhere plan: everything that decides the run. Edit what you like."))
    document["seed"] = plan.seed
    for name in ("network", "training", "augmentation", "normalisation"):
        table = tomlkit.table()
        for key, value in plan.table(name).items():
            if (name, key) == ("network", "skips") and value == tuple(range(plan.network.depth)):
                value = "all"
            item = tomlkit.item(list(value) if isinstance(value, tuple) else value)
            said = plan.reasons.get(f"{name}.{key}") or _MEANINGS.get(f"{name}.{key}")
            if name == "normalisation" and key != "dtype":
                said = plan.reasons.get(name, said)
            table.add(key, item.comment(said) if said else item)
        document[name] = table
    document["classes"] = _toml_classes(plan)
    return f"{tomlkit.dumps(document)}\n[split]\n{_toml_split(plan)}"


def _toml_split(plan: Plan) -> str:
    """As text: tomlkit looks at a whole list again for each name that it adds, and there may be 10^5."""
    lists = {key: ", ".join(tomlkit.item(name).as_string() for name in names) for key, names in plan.split.items()}
    return "".join(f"{key} = [{listed}]\n" for key, listed in lists.items())


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
        entry["color"] = color_text(color)
        entry["values"] = [_listed(value) for value in values]
        entries.append(entry)
    table["class"] = entries
    return table


def _listed(value: int | tuple[int, int, int]) -> int | list[int]:
    return list(value) if isinstance(value, tuple) else value
