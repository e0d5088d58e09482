"""From trained splats to pictures: the views of the photos, camera paths, videos.

trained.open_model  splats and what is known of their training
job.render_model    which cameras, and their pictures
frames.FrameFolder  pictures, photos and depths as numbered files
"""

from splatrender.rendering.job import RenderJob, render_model
from splatrender.rendering.trained import Trained, open_model

__all__ = ["RenderJob", "Trained", "open_model", "render_model"]
