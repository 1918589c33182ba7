"""Training a network that the caller gives, instead of one that a plan describes: what its plan says, and checks.

Any torch module that gives logits of the image's size will do: MONAI's, segmentation_models.pytorch's, your own.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from whatwhere.errors import PlanError, in_a_line, is_out_of_memory
from whatwhere.learn.pilot import pilot_side
from whatwhere.learn.plan import NetworkPlan, Plan
from whatwhere.learn.step import autocast
from whatwhere.network import Machine, Model, build, has_lazy_layers, is_of, kind_of, name_of, state_of
from whatwhere.network.machine import layout
from whatwhere.network.quick import forward
from whatwhere.paint import Engine

__all__ = ["STEP", "network_of", "planned_for"]

STEP = 32
"""Many networks take only multiples of it."""


def planned_for(plan: Plan, module: nn.Module) -> Plan:
    """The plan for training ``module``: no choice of a network is left in it.

    Raises:
        PlanError: it is no module, or one that can't learn.
    """
    _check_weights(module)
    reasons = {key: said for key, said in plan.reasons.items() if not key.startswith("network.")}
    weights = sum(parameter.numel() for parameter in module.parameters())
    reasons["network.module"] = f"the network that was given, of {weights:,} weights"
    return replace(plan, network=NetworkPlan(module=name_of(module)), reasons=reasons)


def network_of(plan: Plan, module: nn.Module | None, machine: Machine) -> nn.Module:
    """What is trained: the network that the plan describes, or ``module`` if it is the one that the plan is for.

    Raises:
        PlanError: the plan is for another network, or this one does not give a logit for each class and pixel.
        ModelError: it has state that no model file can hold, or can't be painted with.
    """
    asked = plan.network.module
    if module is None and not asked:
        return build(plan.network_config)
    if module is None or not is_of(module, asked):
        raise PlanError(
            f"a plan for {asked or 'a network of whatwhere'}, and {name_of(module) if module else 'no module'}",
            "the network that the plan is for",
            "give it in Python: train(..., module=...)" if asked else "make the plan for it: plan(..., module=...)",
        )
    _check_weights(module)
    state_of(module)
    count = plan.training.batch // plan.training.accumulate
    for side in {plan.training.crop, pilot_side(plan)}:
        while not _checked_output(module, plan, (count, side), machine):
            count //= 2  # as training will, when memory runs out
    # whatever painting asks for is told now, not at the first validation
    Engine(Model(module, plan.classes, plan.normalisation), plan.training.precision, machine.device, backend="eager")
    return module


def _check_weights(module: object) -> None:
    """Whether it is a module with weights of the usual kind, some of which learn."""
    if not isinstance(module, nn.Module):
        raise PlanError(
            f"module is {kind_of(module)}", "a torch module", "make one, such as BasicUNet(...), and give that"
        )
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise PlanError(
                f"{part.original_name} is TorchScript", "a module of Python's", "give the one that it was made from"
            )
    parameters = list(module.parameters())
    if has_lazy_layers(module):
        raise PlanError(f"{name_of(module)} has lazy layers", "layers with weights", "run it once on an image")
    others = {parameter.dtype for parameter in parameters} - {torch.float32}
    if others:
        raise PlanError(f"{name_of(module)} has weights of {others.pop()}", "float32", "convert it: module.float()")
    if not any(parameter.requires_grad for parameter in parameters):
        raise PlanError(f"{name_of(module)} has no weights that learn", "some", "set requires_grad_(True)")


def _copied(module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:  # of tensors that were computed, as the older weight_norm keeps them
        raise PlanError(
            f"{name_of(module)} can't be copied ({in_a_line(error)})",
            "a module that copy.deepcopy takes",
            "make it anew without running it, and use torch.nn.utils.parametrizations for weight or spectral norms",
        ) from error


def _checked_output(module: nn.Module, plan: Plan, crops: tuple[int, int], machine: Machine) -> bool:
    """Runs a copy as training will: on so many crops of such a side, in its layout and precision.

    False where there is no memory for several crops.
    """
    channels, classes = plan.normalisation.channels, plan.classes.count
    count, side = crops
    image = torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))
    expected = f"a tensor {(count, classes, side, side)}: a logit for each class and pixel"
    learner = _copied(module).train().to(machine.device, memory_format=layout(machine.device))  # type: ignore[call-overload]
    try:
        with torch.no_grad(), autocast(machine):
            found = forward(learner, image.to(machine.device).contiguous(memory_format=layout(machine.device)))
    except Exception as error:  # whatever a foreign network may raise
        if is_out_of_memory(error) and count > 1:
            return False
        raise PlanError(
            f"{name_of(module)} fails on crops {tuple(image.shape)}, channels last, in {machine.precision} "
            f"({in_a_line(error)})",
            expected,
            f"make it for {channels} channels and {classes} classes, or change crop, batch or precision in the plan",
        ) from error
    if not isinstance(found, Tensor) or found.shape != (count, classes, side, side):
        gives = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise PlanError(f"{name_of(module)} gives {gives} in training mode", expected, _how_to_give(found, classes))
    return True


def _how_to_give(found: object, classes: int) -> str:
    """What would make a network's result logits of each class and pixel."""
    if not isinstance(found, Tensor) or found.ndim != 4:
        return "return the logits alone, as of several found['out'] or found[0], with deep supervision off"
    if found.shape[1] == classes:
        return "enlarge them to the size of the crop"
    return f"make it for {classes} classes"
