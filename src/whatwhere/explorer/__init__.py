"""A local page on which a trained network can be touched."""

from whatwhere.explorer.app import create_app
from whatwhere.explorer.desk import Desk
from whatwhere.explorer.serve import explore

__all__ = ["Desk", "create_app", "explore"]
