"""Which pixels of the image each unit of any torch module sees, and the halo that exact tiles need."""

from whatwhere.field.build import field
from whatwhere.field.field import Field
from whatwhere.field.grids import Grid
from whatwhere.field.obstacles import Obstacle

__all__ = ["Field", "Grid", "Halo", "Obstacle", "field"]
