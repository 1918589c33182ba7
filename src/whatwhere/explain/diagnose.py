"""Why is it black, wrong or blocky? Gathers what the checks look at, and runs them.

Knows a model, its anatomy and what was measured already; nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from whatwhere.explain import causes_in_network, causes_in_painting
from whatwhere.explain.anatomy import Anatomy
from whatwhere.explain.cases import Case
from whatwhere.explain.diagnosis import Diagnosis, Measurements, Observed
from whatwhere.explain.study import Study
from whatwhere.judge import Judge
from whatwhere.network import Model

__all__ = ["diagnose"]


def diagnose(
    model: Model, anatomy: Anatomy, cases: Sequence[Case], study: Study, measured: Measurements
) -> tuple[Diagnosis, ...]:
    """Run every check that the data allow: those of right and wrong need masks."""
    observed = _observed(model, anatomy, cases, study, measured)
    checks = (*causes_in_painting.CHECKS, *causes_in_network.CHECKS) if measured.truth else causes_in_network.CHECKS
    return tuple(check(observed) for check in checks)


@torch.inference_mode()
def _observed(model: Model, anatomy: Anatomy, cases: Sequence[Case], study: Study, measured: Measurements) -> Observed:
    classes = model.classes
    judges = [Judge(classes, tolerance=tolerance, contours_only=True) for tolerance in (1.0, 4.0)]
    sums, pixels = np.zeros((classes.count, classes.count)), np.zeros(classes.count)
    paintings = []
    for case in cases:
        assert case.truth is not None
        chances = anatomy.read(case.image)[0][0].float().softmax(0).cpu().numpy()
        painted = chances.argmax(0).astype(np.uint8)
        paintings.append(painted)
        for judge in judges:
            judge.add(case.name, case.truth, painted)
        for class_id in range(classes.count):
            inside = case.truth == class_id
            sums[class_id] += chances[:, inside].sum(1)
            pixels[class_id] += inside.sum()
    mean = sums / np.maximum(pixels, 1)[:, None]
    strict, loose = (judge.result() for judge in judges)
    return Observed(model, anatomy, cases, study, measured, strict, loose, paintings, mean)
