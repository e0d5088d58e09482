"""Adaptive density control of 3D Gaussian splatting: clone, split, prune, reset.

These heuristics, with the thresholds of the paper's code, are the baseline of the other strategies.
One rule is added, because budgets are compared: births never exceed `max_splats`, and the largest
gradients come first.

Source: Kerbl et al., 3D Gaussian Splatting for Real-Time Radiance Field Rendering, 2023,
    section 5.2.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from splatrender.flow.schedules import FULL_ITERATIONS, scaled_interval
from splatrender.flow.state import TrainState
from splatrender.flow.strategies.base import STRATEGIES, StepReport, Strategy
from splatrender.model import Splats
from splatrender.model.quaternions import spread
from splatrender.scenes.extent import camera_extent

GRADIENT = "adc/gradient"  # Σ over views of the norm of the gradient in the image
VIEWS = "adc/views"  # number of views that saw a splat


class ADC(Strategy):
    """Cloning of small splats and splitting of large ones with large gradients in the image.

    Before half of the run, every 100 iterations, splats whose mean gradient of the loss in their
    place in the image (in units of half an image) exceeds 0.0002 are cloned if their largest
    scale is below 1 % of the scene's extent, and otherwise split into two of 1/1.6 of the size,
    drawn from the parent. Splats with opacity below 0.005 are removed, and after the first reset
    also those larger than 10 % of the extent. Every 3,000 iterations (of 30,000; in proportion)
    opacities are cut to 0.01.

    The paper's code has a rule that removes splats larger than 20 px in an image, but it resets
    their radii before it reads them, and the rule never applies. It is left out here.

    Args:
        iterations: length of the run.
        max_splats: maximum number of splats.
        resets: cut opacities now and then.
        prune_large: remove splats larger than 10 % of the extent.

    Source:
        Kerbl et al. 2023, section 5.2, and the parameters of its code.
    """

    name = "adc"
    watches_footprints = True
    threshold = 2e-4  # mean gradient, in units of half an image
    dense = 0.01  # share of the extent: smaller splats are cloned, larger ones split
    faint = 0.005  # opacity
    big_in_world = 0.1  # share of the extent
    reset_to = 0.01  # opacity
    shrink = 1.6  # ratio of a parent's size to that of its two children
    from_iteration, interval_of_long_runs = 500, 100

    def __init__(
        self, iterations: int, max_splats: int, resets: bool = True, prune_large: bool = True
    ) -> None:
        super().__init__(iterations, max_splats)
        self.resets, self.prune_large = resets, prune_large
        self.interval = scaled_interval(self.interval_of_long_runs, iterations)
        self.first = scaled_interval(self.from_iteration, iterations)
        self.last = iterations // 2  # 15,000 of 30,000; excluded, as a reset would be due
        self.reset = max(1, round(iterations * 3000 / FULL_ITERATIONS))

    @torch.no_grad()
    def after_backward(self, state: TrainState) -> None:
        """Collect gradients in the image."""
        prints = state.footprints
        slope = None if prints is None else prints.slope(self.absgrad)
        if prints is None or slope is None or state.iteration >= self.last:
            return
        for key in (GRADIENT, VIEWS):
            if key not in state.rows:
                state.rows[key] = torch.zeros(len(state), device=state.steps.device)
        seen = prints.extents[0, :, 0] > 0
        across, down = slope[0].unbind(dim=1)
        slope = torch.stack([across * (prints.width / 2), down * (prints.height / 2)], dim=1)
        state.rows[GRADIENT] += slope.norm(dim=1) * seen
        state.rows[VIEWS] += seen

    @torch.no_grad()
    def step(self, state: TrainState) -> StepReport | None:
        """Densify, prune and reset when it is time."""
        iteration, report = state.iteration, None
        if iteration >= self.last or GRADIENT not in state.rows:
            return None
        if iteration > self.first and iteration % self.interval == 0:
            extent = scene_extent(state)
            born = self._densify(state, extent)
            died = self._prune(state, extent)
            for key in (GRADIENT, VIEWS):
                state.rows[key] = torch.zeros(len(state), device=state.steps.device)
            if born or died:
                report = StepReport(iteration, len(state), born=born, died=died)
        if self.resets and iteration % self.reset == 0:
            logits = state.splats.opacity_logits
            logits.clamp_(max=math.log(self.reset_to / (1 - self.reset_to)))
            moments = state.moments["opacity_logits"]
            moments.exp_avg.zero_()
            moments.exp_avg_sq.zero_()
        return report

    def _densify(self, state: TrainState, extent: float) -> int:
        """Clone and split; return the number of new splats."""
        gradient = state.rows[GRADIENT] / state.rows[VIEWS].clamp(min=1)
        room = self.max_splats - len(state)
        parents = (gradient >= self.threshold).nonzero()[:, 0]
        parents = parents[gradient[parents].argsort(descending=True)][: max(0, room)]
        if len(parents) == 0:
            return 0
        large = state.splats.scales[parents].amax(dim=1) > self.dense * extent
        split, cloned = parents[large], parents[~large]
        twins = state.splats.detach().index(cloned)
        one, other = (self._child(state, split) for _ in range(2))
        state.overwrite(split, one)
        state.append(Splats.cat([twins, other]))
        return len(parents)

    def _child(self, state: TrainState, parents: Tensor) -> Splats:
        family = state.splats.detach().index(parents)
        xi = torch.randn(len(parents), 3, generator=state.generator, device=parents.device)
        means = family.means + spread(family.quats, family.scales, xi)
        log_scales = family.log_scales - math.log(self.shrink)
        return Splats(means, family.quats, log_scales, family.opacity_logits, family.sh)

    def _prune(self, state: TrainState, extent: float) -> int:
        """Remove faint and too large splats; return their number."""
        gone = state.splats.opacities < self.faint
        if self.prune_large and state.iteration > self.reset:
            gone |= state.splats.scales.amax(dim=1) > self.big_in_world * extent
        kept = (~gone).nonzero()[:, 0]
        died = len(state) - len(kept)
        if died == 0 or len(kept) == 0:
            return 0
        state.select(kept)
        return died


def scene_extent(state: TrainState) -> float:
    """Return 1.1 times the largest distance of a camera from the mean, without outliers."""
    return camera_extent(torch.stack([view.camera.center for view in state.views])).length


class AbsADC(ADC):
    """Adaptive density control by gradients that are summed over pixels by absolute value.

    The gradients of single pixels on a large splat have all directions and cancel, and the splat is
    never split; their absolute values add up. They are larger, hence the larger threshold.

    Source:
        Ye et al., AbsGS: Recovering Fine Details for 3D Gaussian Splatting, 2024; the threshold
        is the one that gsplat advises.
    """

    name = "adc-absgrad"
    absgrad = True
    threshold = 8e-4


STRATEGIES[ADC.name] = ADC
STRATEGIES[AbsADC.name] = AbsADC
