"""Step of the optimizer Adam in pure torch."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def adam_step(  # noqa: PLR0913, the signature of the operator
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
    p ← p - lr · (m / (1-β1ᵗ)) / (√(v / (1-β2ᵗ)) + ε).

    Args:
        param: [N,...], changed in place.
        grad: gradient, in the shape of param.
        exp_avg, exp_avg_sq: m and v, in the shape of param, changed in place.
        steps: int32 [N] number of steps of each row.
        rows: [N], 0 = leave the row alone; None moves all rows.
        lr: step size, or [columns], one for each column.
        betas: β1 and β2.
        eps: ε.
        columns: number of leading columns of the (flattened) rows that move; None = all.
        advance: write t back to steps.

    Source:
        Kingma, Ba, Adam: a method for stochastic optimization, 2015.
    """
    moved = torch.ones_like(steps, dtype=torch.bool) if rows is None else rows != 0
    n = moved.nonzero().flatten()
    shape = (len(steps), param.shape[1:].numel())
    p, m, v = (x.view(shape)[:, :columns] for x in (param, exp_avg, exp_avg_sq))
    g = grad.reshape(shape)[:, :columns]
    t = (steps[n] + 1).to(torch.float64)[:, None]
    beta1, beta2 = betas
    m[n] = beta1 * m[n] + (1 - beta1) * g[n]
    v[n] = beta2 * v[n] + (1 - beta2) * g[n].square()
    mean, square = m[n] / (1 - beta1**t), v[n] / (1 - beta2**t)
    p[n] -= (lr * mean / (square.sqrt() + eps)).to(p.dtype)
    if advance:
        steps += moved
