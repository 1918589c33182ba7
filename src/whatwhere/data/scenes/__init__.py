"""Cats and cushions, the embedded demo's data set. See ``scene.py``."""

from whatwhere.data.scenes.scene import BODY, CLASSES, HEAD, THIN, TRIM, Scene, render_scene, write_scenes

__all__ = ["BODY", "CLASSES", "HEAD", "THIN", "TRIM", "Scene", "render_scene", "write_scenes"]
