"""A photo together with the camera that took it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.model.camera import Camera


@dataclass(frozen=True, eq=False)
class View:
    """A photo and the camera that took it: the data that scenes, training and the flow share.

    Attributes:
        camera: pinhole camera of the photo's size, in the scene's inside frame.
        photo: uint8 [H, W, 3] RGB.
        mask: uint8 [H, W], 1 = keep and 0 = ignore, or None to keep everything.
        name: name of the photo in the COLMAP model, with subfolders.
    """

    camera: Camera
    photo: Tensor
    mask: Tensor | None = None
    name: str = ""

    @property
    def nbytes(self) -> int:
        """Memory of photo and mask."""
        return self.photo.nbytes + (0 if self.mask is None else self.mask.nbytes)

    def map(self, function: Callable[[Tensor], Tensor]) -> View:
        """Return the view with photo and mask after `function`."""
        mask = None if self.mask is None else function(self.mask)
        return replace(self, photo=function(self.photo), mask=mask)

    def reduced(self, factor: int) -> View:
        """Return the view with boxes of `factor` x `factor` pixels averaged.

        Args:
            factor: 1 leaves the photo as it is (and shares its memory).

        Returns:
            A view of size ceil(W / factor) x ceil(H / factor), still in uint8; the mask keeps a
            pixel only where it kept the whole box.
        """
        if factor <= 1:
            return self
        height, width = (-(-side // factor) for side in self.photo.shape[:2])
        planes = self.photo.permute(2, 0, 1)[None].float()
        planes = torch.nn.functional.adaptive_avg_pool2d(planes, (height, width))
        photo = planes[0].permute(1, 2, 0).round_().to(torch.uint8).contiguous()
        mask = self.mask
        if mask is not None:
            gaps = (mask == 0)[None, None].float()
            gaps = torch.nn.functional.adaptive_max_pool2d(gaps, (height, width))
            mask = (gaps[0, 0] == 0).to(torch.uint8)
        return replace(self, camera=self.camera.resized(width, height), photo=photo, mask=mask)
