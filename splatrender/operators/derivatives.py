"""Derivatives of the operators: first ones, in reverse mode. All others are refused.

torch drops the others silently: a forward-mode tangent (`torch.func.jvp`) ends at an operator
without a rule for it, and a second derivative ends at an operator's backward. Both would give wrong
results without a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

F = TypeVar("F", bound=Callable[..., Any])

FUNCTORCH = (
    "functorch transforms"  # in the message of torch where torch.func differentiates an operator
)


class _Guarded(torch.library.Library):
    """Registers autograd kernels that refuse what they have no rule for."""

    def impl(self, op_name: Any, fn: Callable[..., Any], *args: Any, **options: Any) -> None:
        name = str(op_name)

        def kernel(keyset: Any, *tensors: Any, **others: Any) -> Any:
            refuse_tangents(name, *tensors)
            try:
                return fn(keyset, *tensors, **others)
            except RuntimeError as error:
                if FUNCTORCH not in str(error):
                    raise
            raise NotImplementedError(
                f"{name} is not differentiated by torch.func (grad, vjp, jacrev, hessian): use "
                "Tensor.backward or torch.autograd.grad"
            )

        super().impl(op_name, kernel, *args, **options)  # type: ignore[no-untyped-call]


_library = _Guarded("splatrender", "FRAGMENT")  # type: ignore[no-untyped-call]


def refuse_tangents(name: str, *values: Any) -> None:
    """Refuse forward-mode derivatives.

    Args:
        name: name of the operator.
        values: its arguments; those that are no tensors are skipped.

    Raises:
        NotImplementedError: a tensor carries a tangent.
    """
    if getattr(forward_ad, "_current_level", 0) < 0:  # no forward mode: spares a loop per call
        return
    if any(isinstance(v, Tensor) and forward_ad.unpack_dual(v).tangent is not None for v in values):
        raise NotImplementedError(
            f"{name} has no forward-mode derivative (jvp, jacfwd): use reverse mode, "
            "Tensor.backward or torch.autograd.grad"
        )


def register_fake(name: str) -> Callable[[F], F]:
    """Return a decorator that registers the shapes of splatrender::`name` for fake tensors."""
    decorator: Callable[[F], F] = torch.library.register_fake(f"splatrender::{name}")
    return decorator


def register_derivative(
    name: str, backward: Callable[..., Any], setup_context: Callable[..., Any]
) -> None:
    """Register the first derivative of splatrender::`name`, in reverse mode.

    Args:
        name: name of the operator.
        backward, setup_context: see `torch.library.register_autograd`.
    """
    torch.library.register_autograd(
        f"splatrender::{name}", backward, setup_context=setup_context, lib=_library
    )


def refuse_derivative(name: str, what: str) -> None:
    """Register that splatrender::`name` has no derivative: backward raises the sentence `what`."""

    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(what)

    torch.library.register_autograd(f"splatrender::{name}", backward, lib=_library)


def refuse_second_derivative(name: str) -> None:
    """Register that splatrender::`name`_backward is not differentiated again."""
    refuse_derivative(f"{name}_backward", _once(name))


def refuse_vmap(name: str, instead: str) -> None:
    """Register that splatrender::`name` does not run under torch.vmap.

    Args:
        name: name of the operator.
        instead: alternative, the end of the sentence.
    """

    def rule(*args: Any) -> Any:
        raise NotImplementedError(f"{name} does not run under torch.vmap: {instead}")

    torch.library.register_vmap(f"splatrender::{name}", rule)


def first_derivative(name: str, gradient: Tensor, *sources: Tensor) -> Tensor:
    """Return a gradient of plain operations, with a refusal where it is differentiated again.

    Args:
        name: name of the operator that the gradient belongs to.
        gradient: gradient to be returned.
        sources: tensors on which the gradient depends but its graph does not.
    """
    if not torch.is_grad_enabled():
        return gradient
    return _Once.apply(name, gradient, *sources)  # type: ignore[no-untyped-call,no-any-return]


class _Once(torch.autograd.Function):
    """Identity of its first tensor; its derivative is refused."""

    @staticmethod
    def forward(ctx: Any, name: str, gradient: Tensor, *sources: Tensor) -> Tensor:
        ctx.name = name
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(_once(ctx.name))


def _once(name: str) -> str:
    return (
        f"{name} is differentiated once only: second derivatives (create_graph=True, hessian) are "
        "not implemented"
    )
