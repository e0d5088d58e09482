"""Samples: the order, size and memory of the photos that training sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.training import HEIGHT, WIDTH, ring_scene

from splatrender.metrics import score
from splatrender.model.view import View
from splatrender.scenes.scene import Scene
from splatrender.training.data import Samples

pytest.importorskip("plyfile")  # training writes .ply files


@pytest.fixture(scope="module")
def scene() -> Scene:
    return ring_scene()


def test_rounds_visit_every_view_once(scene: Scene) -> None:
    samples = Samples(scene.train, torch.Generator().manual_seed(0))
    rounds = [[samples.next(1).name for _ in scene.train] for _ in range(3)]
    assert all(sorted(names) == sorted(v.name for v in scene.train) for names in rounds)
    assert rounds[0] != rounds[1]


def test_what_was_put_back_comes_again(scene: Scene) -> None:
    samples = Samples(scene.train, torch.Generator().manual_seed(0))
    samples.put_back()  # nothing was taken yet
    names = [samples.next(1).name for _ in range(3)]
    samples.put_back()
    samples.put_back()
    names += [samples.next(1).name for _ in range(len(scene.train) - 2)]
    assert names[2] == names[3] and sorted(names[3:] + names[:2]) == sorted(
        view.name for view in scene.train
    )


def test_photos_stay_on_the_device_while_there_is_room(scene: Scene) -> None:
    mask = torch.ones(HEIGHT, WIDTH, dtype=torch.uint8)
    views = [replace(view, mask=mask) for view in scene.train]
    size = 4 * HEIGHT * WIDTH
    meta = torch.device("meta")  # memory that costs nothing
    samples = Samples(views, torch.Generator().manual_seed(0), meta, room=3 * size + 10)
    rounds: list[dict[str, Any]] = [{}, {}]
    for seen in rounds:
        for _ in views:
            sample = samples.next(1)
            assert sample.photo.device == meta and sample.mask is not None
            assert sample.mask.device == meta
            seen[sample.name] = sample
    kept = [name for name in rounds[0] if rounds[0][name] is rounds[1][name]]
    assert len(kept) == 3
    assert all(samples.next(2).nbytes == size // 4 for _ in views)  # room is made anew


def test_reduction_averages_boxes(scene: Scene) -> None:
    view = scene.train[0]
    mask = torch.ones(HEIGHT, WIDTH, dtype=torch.uint8)
    mask[5, 9] = 0
    small = replace(view, mask=mask).reduced(4)
    boxes = view.photo.float().reshape(HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean(dim=(1, 3))
    assert small.photo.dtype == torch.uint8
    assert float((small.photo - boxes).abs().max()) <= 0.5 + 1e-3
    assert (small.camera.width, small.camera.height) == (WIDTH // 4, HEIGHT // 4)
    assert small.camera.fx == pytest.approx(view.camera.fx / 4)
    assert small.mask is not None and int((small.mask == 0).sum()) == 1
    assert small.mask[1, 2] == 0


def test_sizes_that_do_not_divide(scene: Scene) -> None:
    view = scene.train[0]
    odd = View(view.camera.resized(71, 47), view.photo[:47, :71], None, "odd")
    small = odd.reduced(2)
    assert small.photo.shape == (24, 36, 3)
    assert (small.camera.width, small.camera.height) == (36, 24)


def test_scores_leave_masked_pixels_out(scene: Scene) -> None:
    view = scene.train[0]
    mask = torch.ones(HEIGHT, WIDTH, dtype=torch.uint8)
    mask[:, :20] = 0
    image = view.photo.clone()
    image[:, 30:] = image[:, 30:].flip(0)
    damaged = image.clone()
    damaged[:, :20] = 255
    masked = replace(view, mask=mask)
    assert score(damaged, masked) == score(image, masked)
    assert score(damaged, view) != score(image, view)
