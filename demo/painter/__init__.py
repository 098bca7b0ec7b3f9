"""The painter of the demo board: anime characters, sceneries, comics and sketches from a seed."""

from demo.painter.canvas import Drawing, Face, Portrayed
from demo.painter.illustration import draw, draw_comic, draw_sketch
from demo.painter.scenery import draw_scenery

__all__ = ["Drawing", "Face", "Portrayed", "draw", "draw_comic", "draw_scenery", "draw_sketch"]
