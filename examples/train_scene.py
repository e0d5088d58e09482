"""Train the bundled scene from Python, watch the run, and render the result."""

import sys
from pathlib import Path

from splatrender import TrainOptions, load_scene, render, train

output = Path(sys.argv[1] if len(sys.argv) > 1 else "output/example")
options = TrainOptions(
    Path(__file__).parents[1] / "scenes/still_life",
    output,
    resolution=8,
    iterations=400,
    max_splats=5000,
    overwrite=True,
)
scene = load_scene(options.source, resolution=options.resolution)


def report(state):
    """Print the number of splats now and then."""
    if state.iteration % 100 == 0:
        print(f"iteration {state.iteration}: {len(state.splats)} splats")


result = train(options, scene, on_step=report)
print(result.results["psnr"], "dB on", result.results["views"]["test"], "held-out views")

inside = scene.similarity.apply(result.splats)  # from the world to the frame of the cameras
image = render(inside, scene.test[0].camera).radiance[0]
print("image", tuple(image.shape))
