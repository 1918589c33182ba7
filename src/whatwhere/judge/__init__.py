"""Scores from labels and truth: pure functions. Knows nothing of networks."""

from whatwhere.judge.comparison import Comparison, Difference, compare
from whatwhere.judge.judging import Judge
from whatwhere.judge.measures import Estimate
from whatwhere.judge.scores import Bin, Scores

__all__ = ["Bin", "Comparison", "Difference", "Estimate", "Judge", "Scores", "compare"]
