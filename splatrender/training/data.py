"""Which view comes next, and in which size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splatrender.camera import Camera
from splatrender.flow import TrainingView


@dataclass(frozen=True, eq=False)
class Sample:
    """A view at the size of one training step.

    Attributes:
        camera: of that size.
        photo: uint8 [H, W, 3].
        mask: uint8 [H, W], 1 = keep, or None.
        name: of the view.
    """

    camera: Camera
    photo: Tensor
    mask: Tensor | None
    name: str


def reduced(view: TrainingView, factor: int) -> Sample:
    """A view whose photo is reduced by averaging boxes of `factor` x `factor` pixels.

    Args:
        view: at full size.
        factor: 1 leaves the photo as it is (and shares its memory).

    Returns:
        A view of size ceil(W / factor) x ceil(H / factor), still in uint8; the mask keeps a
        pixel only where it kept the whole box.
    """
    camera, photo, mask = view.camera, view.photo, view.mask
    if factor > 1:
        height, width = (-(-side // factor) for side in photo.shape[:2])
        planes = photo.permute(2, 0, 1)[None].float()
        planes = torch.nn.functional.adaptive_avg_pool2d(planes, (height, width))
        photo = planes[0].permute(1, 2, 0).round_().to(torch.uint8).contiguous()
        if mask is not None:
            gaps = (mask == 0)[None, None].float()
            gaps = torch.nn.functional.adaptive_max_pool2d(gaps, (height, width))
            mask = (gaps[0, 0] == 0).to(torch.uint8)
        camera = camera.resized(width, height)
    return Sample(camera, photo, mask, view.name)


class Samples:
    """Training views in shuffled rounds, reduced to the size of the moment.

    Args:
        views: all training views, at full size.
        generator: shuffles.
    """

    def __init__(self, views: Sequence[TrainingView], generator: torch.Generator) -> None:
        self.views = views
        self.smallest_side = min(min(view.photo.shape[:2]) for view in views)
        self._generator = generator
        self._order: list[int] = []  # of this round, what is still to come, last first
        self._factor = 0
        self._samples: list[Sample] = []

    def next(self, factor: int) -> Sample:
        """The next view of the round, reduced by `factor`."""
        if factor != self._factor:  # a stage of a run needs each size once
            self._samples = [reduced(view, factor) for view in self.views]
            self._factor = factor
        if not self._order:
            self._order = torch.randperm(len(self.views), generator=self._generator).tolist()
        return self._samples[self._order.pop()]

    @property
    def current(self) -> Sequence[Sample]:
        """All views, in the size that was asked for last."""
        return self._samples

    def memory(self) -> list[int]:
        """What is left of the round, for a checkpoint."""
        return list(self._order)

    def recall(self, order: list[int]) -> None:
        """Take back what `memory` told."""
        self._order = [int(i) for i in order]
