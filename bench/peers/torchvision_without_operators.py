"""Lets torchvision be imported beside a torch that its compiled operators do not fit (a CPU build, say).

Its wheel then stops with "operator torchvision::nms does not exist", although timm and segmentation_models.pytorch
want nothing of it but functions in Python. Where torchvision has found that its compiled operators can't be loaded,
the two whose absence stops it are declared here, without an implementation: whoever called them would get PyTorch's
own error. ``setup.py`` copies this file into the peers' environment, with a ``.pth`` line that imports it as Python
starts; nothing else is imported until torchvision is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
DECLARED: list[object] = []
"""Keeps the declarations alive: torch takes them back when the object dies."""


class DeclareOperators(MetaPathFinder):
    """Finds nothing; declares the operators right before torchvision describes them."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:  # noqa: ARG002
        if name == "torchvision._meta_registrations" and not sys.modules["torchvision.extension"]._has_ops():
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for operator in OPERATORS:
                library.define(operator)
            DECLARED.append(library)


sys.meta_path.insert(0, DeclareOperators())
