"""Scores of renderings against photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.io.images import to_uint8
from splatrender.metrics import ViewScore, score
from splatrender.model.camera import Camera
from splatrender.model.view import View


@dataclass(frozen=True)
class Evaluation:
    """Scores of some views at one iteration.

    Attributes:
        iteration: when.
        split: "test", or "train" where there are no test views.
        scores: one for each view.
    """

    iteration: int
    split: str
    scores: tuple[ViewScore, ...]

    @property
    def psnr(self) -> float:
        """Mean over views [dB]."""
        return sum(score.psnr for score in self.scores) / len(self.scores)

    @property
    def ssim(self) -> float:
        """Mean over views."""
        return sum(score.ssim for score in self.scores) / len(self.scores)

    def summary(self) -> dict[str, float | int | str]:
        """Return the entry in the history of a run."""
        return {
            "iteration": self.iteration,
            "split": self.split,
            "psnr": self.psnr,
            "ssim": self.ssim,
        }


def evaluate(
    views: Sequence[View],
    render_camera: Callable[[Camera], Tensor],
    iteration: int,
    split: str,
    on_image: Callable[[int, View, Tensor], None] | None = None,
) -> Evaluation:
    """Render views and score them.

    Args:
        views: one view or more.
        render_camera: function that returns the radiance [H, W, 3] that a camera sees.
        iteration: iteration of the run.
        split: "test" or "train".
        on_image: function to call with index, view and uint8 image of each.

    Returns:
        The scores.
    """
    scores = []
    with torch.no_grad():
        for index, view in enumerate(views):
            image = to_uint8(render_camera(view.camera))
            scores.append(score(image, view))
            if on_image is not None:
                on_image(index, view, image)
    return Evaluation(iteration, split, tuple(scores))
