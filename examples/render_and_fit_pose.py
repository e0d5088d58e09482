"""Render splats of the bundled scene, differentiate the image, and recover a camera pose."""

from pathlib import Path

import torch

from splatrender import Splats, load_scene, render

scene = load_scene(Path(__file__).parents[1] / "scenes/still_life", resolution=4)
splats = Splats.from_points(scene.points, scene.colors).requires_grad_()
camera = scene.train[0].camera

out = render(splats, camera, depth=True)
(out.radiance[0] - scene.train[0].photo / 255).abs().mean().backward()
print(
    "image",
    tuple(out.radiance.shape),
    "largest gradient of a mean",
    float(splats.means.grad.abs().max()),
)

target = out.radiance[0].detach()
start = camera.moved(torch.tensor([0.02, -0.01, 0.01, 0.01, 0.02, 0.0]))  # a wrong pose
twist = torch.zeros(6, requires_grad=True)
optimizer = torch.optim.Adam([twist], lr=2e-3)
for iteration in range(80):
    error = (render(splats.detach(), start.moved(twist)).radiance[0] - target).square().mean()
    optimizer.zero_grad()
    error.backward()
    optimizer.step()
    if iteration % 20 == 0:
        print(f"iteration {iteration}: error {error.item():.2e}")
before, after = (
    float((pose.center - camera.center).norm()) for pose in (start, start.moved(twist.detach()))
)
print(f"distance to the true camera {before:.4f} before, {after:.4f} after")
