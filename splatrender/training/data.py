"""Which view comes next, in which size, and on which device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splatrender.flow import TrainingView
from splatrender.model.camera import Camera
from splatrender.runtime.devices import send

CPU = torch.device("cpu")
PHOTO_SHARE = 0.25  # of the memory that is free on a GPU, for photos: splats need the rest


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

    @property
    def nbytes(self) -> int:
        """Memory of photo and mask."""
        return self.photo.nbytes + (0 if self.mask is None else self.mask.nbytes)

    def map(self, function: Callable[[Tensor], Tensor]) -> Sample:
        """The sample with photo and mask after `function`."""
        mask = None if self.mask is None else function(self.mask)
        return replace(self, photo=function(self.photo), mask=mask)


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
    """Training views in shuffled rounds, reduced to the size of the moment, on a device.

    Photos that were used once stay on a GPU, as many as there is room for. The others are sent each
    time anew, from pinned memory, which does not keep the GPU waiting.

    Args:
        views: all training views, at full size, on the CPU.
        generator: shuffles; of the CPU.
        device: where samples are wanted.
        room: bytes on the device for photos that stay there; by default a quarter of what is free.
    """

    def __init__(
        self,
        views: Sequence[TrainingView],
        generator: torch.Generator,
        device: torch.device = CPU,
        room: int | None = None,
    ) -> None:
        self.views = views
        self.smallest_side = min(min(view.photo.shape[:2]) for view in views)
        self._generator = generator
        self._device = device
        self._all_room = room
        self._room = 0
        self._order: list[int] = []  # of this round, what is still to come, last first
        self._latest: int | None = None
        self._factor = 0
        self._samples: list[Sample] = []

    def next(self, factor: int) -> Sample:
        """The next view of the round, reduced by `factor`."""
        self._latest = None
        if factor != self._factor:  # a stage of a run needs each size once
            self._samples = []  # before the room is measured
            self._samples = [reduced(view, factor) for view in self.views]
            self._factor = factor
            self._room = _free_room(self._device) if self._all_room is None else self._all_room
        if not self._order:
            self._order = torch.randperm(len(self.views), generator=self._generator).tolist()
        self._latest = self._order.pop()
        return self._sent(self._latest)

    def put_back(self) -> None:
        """Undo the latest `next`, as far as it came: that view comes again."""
        if self._latest is not None:
            self._order.append(self._latest)
            self._latest = None

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

    def _sent(self, index: int) -> Sample:
        """A sample on the device; it stays there if there is room."""
        sample = self._samples[index]
        if sample.photo.device == self._device:
            return sample
        stays = sample.nbytes <= self._room
        if not stays and self._device.type == "cuda" and not sample.photo.is_pinned():
            sample = self._samples[index] = sample.map(Tensor.pin_memory)
        sent = sample.map(lambda plane: send(plane, self._device))
        if stays:
            self._room -= sent.nbytes
            self._samples[index] = sent
        return sent


def _free_room(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    return int(PHOTO_SHARE * torch.cuda.mem_get_info(device)[0])
