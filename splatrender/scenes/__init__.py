"""Scenes on disk become cameras, photos and seed points.

    folder -> colmap.ColmapModel -> distortion.Lens -> photos -> scene.Scene

`load_scene` does all of it.
"""

from splatrender.model.view import View
from splatrender.scenes.scene import Scene, load_scene
from splatrender.scenes.similarity import Similarity

__all__ = ["Scene", "Similarity", "View", "load_scene"]
