"""What and where, what each skip delivers, how far each layer sees: measured on a trained network."""

from whatwhere.explain.explain import Explanation, explain

__all__ = ["Explanation", "explain"]
