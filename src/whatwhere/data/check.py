"""What in a data folder would hurt: a finding for each thing, all at once, before anything is trained.

A pure function of a survey; opens no file. Knows nothing of networks or plans.
"""

from __future__ import annotations

from whatwhere.data import suspect_images as images
from whatwhere.data import suspect_masks as masks
from whatwhere.data.facts import Survey
from whatwhere.data.findings import Findings

__all__ = ["check"]

_CHECKS = (
    images.unreadable,
    masks.mapping_failed,
    masks.unknown_values,
    masks.size_mismatch,
    masks.turned,
    images.kinds_differ,
    images.tiny,
    masks.nothing_to_learn,
    images.unpaired,
    images.named,
    images.missing_data,
    masks.soft_masks,
    masks.transparent,
    masks.inverted,
    masks.blurred_ids,
    masks.lone_white,
    masks.mostly_void,
    masks.near_colors,
    masks.object_numbers,
    masks.missing_classes,
    masks.rare_classes,
    images.copies,
    images.mixed,
    images.few,
    masks.empty_masks,
    images.dark,
    images.bits,
    images.ignored,
    images.beside,
    images.lists,
    images.lost,
    images.sizes,
    masks.classes,
    masks.objects,
)


def check(survey: Survey) -> Findings:
    """Everything in a surveyed folder that would hurt training, and what it holds, the worst first."""
    return Findings.sort(survey.root, (finding for look in _CHECKS for finding in look(survey)))
