"""Memory of a transport: tensors that it keeps of each splat, and that follow their splat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from splatrender.model import Splats


@dataclass(frozen=True, eq=False)
class Moments:
    """Adam's running means of the gradient and of its square, of the parameter's shape."""

    exp_avg: Tensor
    exp_avg_sq: Tensor

    @classmethod
    def zeros(cls, parameter: Tensor) -> Moments:
        """Return the moments before the first step."""
        zeros = torch.zeros_like(parameter, requires_grad=False)
        return cls(zeros, zeros.clone())


@dataclass(frozen=True, eq=False)
class TransportMemory:
    """Tensors [N, ...] that a transport keeps of each splat, by the names of the splats' fields.

    Each transport fills those that it needs; the others are empty.

    Attributes:
        moments: Adam's moments.
        velocities: smoothed velocities of the Wasserstein transport; those of `quats` are turns
            [N, 3] about the splat's own axes.
        powers: [N] its running mean squares of velocities.
    """

    moments: dict[str, Moments] = field(default_factory=dict)
    velocities: dict[str, Tensor] = field(default_factory=dict)
    powers: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of_adam(cls, splats: Splats) -> TransportMemory:
        """Return Adam's memory before the first step."""
        return cls({name: Moments.zeros(tensor) for name, tensor in splats.items()})

    def map(self, function: Callable[[str, Tensor], Tensor]) -> TransportMemory:
        """Return the memory after a function of the field's name and the tensor."""
        return TransportMemory(
            {
                name: Moments(function(name, m.exp_avg), function(name, m.exp_avg_sq))
                for name, m in self.moments.items()
            },
            {name: function(name, tensor) for name, tensor in self.velocities.items()},
            {name: function(name, tensor) for name, tensor in self.powers.items()},
        )

    def forget(self, ids: Tensor) -> None:
        """Set the rows `ids` to zero, in place."""

        def clear(name: str, tensor: Tensor) -> Tensor:
            tensor[ids] = 0
            return tensor

        self.map(clear)
