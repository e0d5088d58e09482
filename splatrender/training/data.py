"""Order, size and device of the views of training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splatrender.model.view import View
from splatrender.runtime.devices import to_device

CPU = torch.device("cpu")
PHOTO_SHARE = 0.25  # share of a GPU's free memory for photos: splats need the rest


class Samples:
    """Training views in shuffled rounds, reduced to the size of the moment, on a device.

    Photos that were used once stay on a GPU, as many as there is room for. The others are sent each
    time anew, from pinned memory, which does not keep the GPU waiting.

    Args:
        views: all training views, at full size, on the CPU.
        generator: source of the order of views, on the CPU.
        device: device of the samples.
        room: bytes on the device for photos that stay there; a quarter of the free memory by
            default.
    """

    def __init__(
        self,
        views: Sequence[View],
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
        self._order: list[int] = []  # indices still to come in this round, last first
        self._latest: int | None = None
        self._factor = 0
        self._samples: list[View] = []

    def next(self, factor: int) -> View:
        """Return the next view of the round, reduced by `factor`."""
        self._latest = None
        if factor != self._factor:  # a stage of a run needs each size once
            self._samples = []  # before the room is measured
            self._samples = [view.reduced(factor) for view in self.views]
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
    def current(self) -> Sequence[View]:
        """All views, in the size of the latest call of `next`."""
        return self._samples

    def state_dict(self) -> list[int]:
        """Return the rest of the round, for a checkpoint."""
        return list(self._order)

    def load_state_dict(self, order: list[int]) -> None:
        """Continue the round of an earlier run."""
        self._order = [int(i) for i in order]

    def _sent(self, index: int) -> View:
        """Return a view on the device; it stays there if there is room."""
        sample = self._samples[index]
        if sample.photo.device == self._device:
            return sample
        stays = sample.nbytes <= self._room
        if not stays and self._device.type == "cuda" and not sample.photo.is_pinned():
            sample = self._samples[index] = sample.map(Tensor.pin_memory)
        sent = sample.map(lambda plane: to_device(plane, self._device))
        if stays:
            self._room -= sent.nbytes
            self._samples[index] = sent
        return sent


def _free_room(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    return int(PHOTO_SHARE * torch.cuda.mem_get_info(device)[0])
