"""Step of the optimizer Adam on the visible rows of a parameter, in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splatrender.arguments import require_number, require_tensors
from splatrender.operators.derivatives import refuse_tangents, register_fake
from splatrender.operators.inputs import input_errors


@input_errors
@torch.no_grad()
def adam_step(  # noqa: PLR0913, the signature of the op
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    steps: Tensor,
    rows: Tensor | None,
    lr: float | Tensor,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-15,
    columns: int | None = None,
    advance: bool = True,
) -> None:
    """Do one step of Adam on some rows of a parameter; every row counts its own steps.

    With t = steps[n] + 1:  m ← β1 m + (1-β1) g,  v ← β2 v + (1-β2) g²,
    p ← p - lr · (m / (1-β1ᵗ)) / (√(v / (1-β2ᵗ)) + ε).  Other rows keep value, moments and count.

    Args:
        param: [N,...], float32, contiguous, changed in place.
        grad: of the shape of param, float32.
        exp_avg, exp_avg_sq: m and v, of the shape of param, float32, contiguous, changed in place.
        steps: [N], int32, contiguous: the steps that each row has done.
        rows: [N], bool or uint8, 0 = leave the row alone; None moves all rows.
        lr: step size, or float32 [columns], one for each column.
        betas: β1 and β2, from 0 to below 1.
        eps: ε; gradients of a mean over pixels are small, and a larger one would damp the steps.
        columns: only the first so many numbers of each (flattened) row move; None = all.
        advance: write t back to steps. Parameters that share one `steps` leave that to the last.

    Raises:
        InputError: an argument has another type, shape, dtype, device or layout than expected.

    Source: Kingma & Ba 2015, "Adam"; steps on visible splats only follow Mallick et al. 2024,
        "Taming 3DGS".

    Example:
        >>> p, m, v = torch.ones(2, 1), torch.zeros(2, 1), torch.zeros(2, 1)
        >>> count = torch.zeros(2, dtype=torch.int32)
        >>> adam_step(p, torch.ones(2, 1), m, v, count, torch.tensor([True, False]), 0.25)
        >>> p.flatten().tolist(), count.tolist()
        ([0.75, 1.0], [1, 0])
    """
    optional = {"rows": rows, "lr": lr if isinstance(lr, Tensor) else None}
    require_tensors(
        optional, param=param, grad=grad, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq, steps=steps
    )
    refuse_tangents("adam_step", param, grad, exp_avg, exp_avg_sq)
    if columns is None:
        columns = param.shape[1:].numel()
    if not isinstance(lr, Tensor):
        rate = require_number("lr", lr)
        lr = torch.full((columns,), rate, dtype=torch.float32, device=param.device)
    torch.ops.splatrender.adam_step(
        param, grad, exp_avg, exp_avg_sq, steps, rows, lr, *betas, eps, columns, advance
    )
    # So that autograd notices a graph that still holds the old values.
    torch.autograd.graph.increment_version([param, exp_avg, exp_avg_sq, steps])


@register_fake("adam_step")
def _adam_fake(*args: Any) -> None:
    return None
