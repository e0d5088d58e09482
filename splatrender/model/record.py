"""The base of models: a row of tensors for each splat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from splatrender.arguments import described, require_tensors, require_type
from splatrender.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class Record:
    """Tensors that have one row for each splat, and one dtype and device.

    A subclass declares its tensors first, `means` among them, and lists them in `tensor_names`.
    Everything else that it declares (a parent, a flag) is the same for all rows and is kept.

    Raises:
        InputError: a field is not a floating-point tensor, or differs in dtype or device.
    """

    @classmethod
    def tensor_names(cls) -> tuple[str, ...]:
        """Return the names of the tensors, in the order of declaration: by default all fields."""
        return tuple(field.name for field in fields(cls))

    def check_kinds(self) -> None:
        """Check that all tensors are floating-point, and of the dtype and device of the means."""
        kind = type(self).__name__
        for name, tensor in self.items():
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
                raise InputError(f"{kind}.{name}: expected a floating-point tensor, got {found}")
        means = self._means
        for name, tensor in self.items():
            for attribute in ("dtype", "device"):
                found, wanted = getattr(tensor, attribute), getattr(means, attribute)
                if found != wanted:
                    raise InputError(
                        f"{kind}.{name}: expected {attribute} {wanted} as of means, got {found}"
                    )

    def check_shapes(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Check the shapes of the named tensors."""
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                kind = type(self).__name__
                raise InputError(f"{kind}.{name}: expected shape {shape}, got {found}")

    def __len__(self) -> int:
        return int(self._means.shape[0])

    @property
    def _means(self) -> Tensor:
        means: Tensor = getattr(self, "means")  # noqa: B009, every record has them
        return means

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that all tensors share."""
        return self._means.dtype

    @property
    def device(self) -> torch.device:
        """The device that all tensors share."""
        return self._means.device

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Return names and tensors, in the order of declaration."""
        return ((name, getattr(self, name)) for name in self.tensor_names())

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Self:
        """Return the record with other tensors in the named fields.

        Args:
            tensors: by name; fields that are not named keep theirs.
        """
        return replace(self, **tensors)

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return the record whose tensors are those of this one after `function`."""
        return self.with_tensors({name: function(tensor) for name, tensor in self.items()})

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the record in another dtype or on another device (arguments of `Tensor.to`)."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self) -> Self:
        """Return the record outside the autograd graph, sharing memory."""
        return self.map(Tensor.detach)

    def clone(self) -> Self:
        """Return a copy in memory of its own."""
        return self.map(Tensor.clone)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask autograd for gradients of every tensor (in place), and return the record."""
        return self.map(lambda tensor: tensor.requires_grad_(requires_grad))

    def index(self, ids: Tensor) -> Self:
        """Return the splats chosen by integer ids [M] or by a boolean mask [N].

        Raises:
            InputError: `ids` is neither.
        """
        require_tensors(ids=ids)
        if ids.dtype not in (torch.bool, *INTEGERS):
            raise InputError(f"ids: expected integers or a boolean mask, got {described(ids)}")
        return self.map(lambda tensor: tensor[ids])

    def finite(self) -> Tensor:
        """Return bool [N]: true where every number of a splat is finite."""
        masks = [t.isfinite().reshape(len(self), -1).all(dim=1) for _, t in self.items()]
        return torch.stack(masks).all(dim=0)

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Return all splats of several records, in order; they must agree in all but their number.

        Raises:
            InputError: there are none, or they differ in kind.
        """
        kind = cls.__name__
        parts = list(parts) if isinstance(parts, Iterable) else [parts]
        for part in parts:
            require_type(f"{kind}.cat", part, cls)
        if not parts:
            raise InputError(f"{kind}.cat: expected at least one record, got none")
        cls.check_alike(parts)
        names = [name for name, _ in parts[0].items()]
        return parts[0].with_tensors(
            {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        )

    @classmethod
    def check_alike(cls, parts: Sequence[Self]) -> None:
        """Check that records can be joined; a subclass names what must agree."""
