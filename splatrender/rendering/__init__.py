"""Rendering of trained splats: the views of the photos, camera paths, videos.

trained.open_model  splats and the known facts of their training
job.render_model    images of the cameras of a job
frames.FrameFolder  images, photos and depths as numbered files
"""

from splatrender.rendering.job import RenderJob, render_model
from splatrender.rendering.trained import Trained, open_model

__all__ = ["RenderJob", "Trained", "open_model", "render_model"]
