"""Training a network that the caller gives, instead of one that a plan describes: what changes in the plan, and checks.

Any torch module that gives logits of the image's size will do: MONAI's, segmentation_models.pytorch's, your own.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from whatwhere.errors import PlanError, in_a_line
from whatwhere.learn.plan import NetworkPlan, Plan
from whatwhere.network import build, is_of, name_of, state_of

__all__ = ["network_of", "planned_for"]

_STEP = 32
"""Many networks take only multiples of it."""


def planned_for(plan: Plan, module: nn.Module) -> Plan:
    """The plan for training ``module``: of the choices of a network none is left, crops are multiples of 32."""
    crop = plan.training.crop
    whole = max(_STEP, crop // _STEP * _STEP)
    weights = sum(parameter.numel() for parameter in module.parameters())
    reasons = {key: said for key, said in plan.reasons.items() if not key.startswith("network.")}
    reasons["network.module"] = f"the network that was given, of {weights:,} weights"
    if whole != crop:
        reasons["training.crop"] = f"a multiple of {_STEP}, as many networks ask for"
    return replace(
        plan, network=NetworkPlan(module=name_of(module)), training=replace(plan.training, crop=whole), reasons=reasons
    )


def network_of(plan: Plan, module: nn.Module | None) -> nn.Module:
    """What is trained: the network that the plan describes, or ``module`` if it is the one that the plan is for.

    Raises:
        PlanError: the plan is for another network, or this one does not give a logit for each class and pixel.
        ModelError: it has state that no model file can hold.
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
    _check(module, plan)
    return module


def _check(module: nn.Module, plan: Plan) -> None:
    """Runs a copy as training will: on a crop, in training mode; and looks whether it can be saved."""
    state_of(module)
    side, classes = plan.training.crop, plan.classes.count
    image = torch.zeros(2, plan.normalisation.channels, side, side)
    expected = f"a tensor {(2, classes, side, side)}: a logit for each class and pixel"
    remedy = f"make it for images of {plan.normalisation.channels} channels and {classes} classes"
    try:
        with torch.no_grad():
            found = copy.deepcopy(module).cpu().train()(image)
    except Exception as error:  # whatever a foreign network may raise
        raise PlanError(
            f"{name_of(module)} fails on a crop {tuple(image.shape)} ({in_a_line(error)})", expected, remedy
        ) from error
    if not isinstance(found, Tensor) or found.shape != (2, classes, side, side):
        gives = f"a tensor {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise PlanError(f"{name_of(module)} gives {gives} in training mode", expected, remedy)
