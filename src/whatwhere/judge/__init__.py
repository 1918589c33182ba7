"""Scores from labels and truth: pure functions. Knows nothing of networks."""

from whatwhere.judge.comparison import Comparison, Difference, compare
from whatwhere.judge.judging import Judge
from whatwhere.judge.measures import Estimate
from whatwhere.judge.pictures import error_picture, preview, to_display, worst_images_sheet
from whatwhere.judge.scores import Bin, Scores
from whatwhere.judge.structures import thin_pixels, thin_recall, v_rand

__all__ = [
    "Bin",
    "Comparison",
    "Difference",
    "Estimate",
    "Judge",
    "Scores",
    "compare",
    "error_picture",
    "preview",
    "thin_pixels",
    "thin_recall",
    "to_display",
    "v_rand",
    "worst_images_sheet",
]
