"""Painting: images of any size in, labels out, as if in one piece."""

from whatwhere.paint.engine import Engine
from whatwhere.paint.paint import Painting, PaintReport, paint
from whatwhere.paint.predict import Prediction, Predictions, predict
from whatwhere.paint.prove import Proof, prove
from whatwhere.paint.tiles import Tile, Tiling, choose_tile

__all__ = [
    "Engine",
    "PaintReport",
    "Painting",
    "Prediction",
    "Predictions",
    "Proof",
    "Tile",
    "Tiling",
    "choose_tile",
    "paint",
    "predict",
    "prove",
]
