"""A pretended GPU: tensors of the CPU that claim to be elsewhere, and a count of the waits.

    python tests/helpers/pretended_gpu.py        waits of training steps and of sweeps, as JSON

The host waits for a GPU when an operation returns a number or a size to it (`float(x)`, `nonzero`,
an index by a mask, `unique`, `tolist`), and for every copy except those from pinned memory.
Operations on tensors of two devices fail as on a GPU. `bin` waits, too, in its own kernel, and is
not counted.

The device is torch's private one, which exists once per process: a test runs this file in a process
of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from helpers.training import options, ring_scene
from splatrender.flow import ExchangeConfig, ExchangeStrategy
from splatrender.io.images import to_uint8
from splatrender.training.run import Run

WAITING = {  # these return a number to the host, or have results of unknown size
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::equal",
    "aten::bincount",
    "aten::histc",
    "aten::repeat_interleave.Tensor",
    "aten::linalg_eigh",
}
INDEX = {"aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}

_setup_privateuseone_for_python_backend("pretended")
DEVICE = torch.device("pretended", 0)
waits: Counter[str] = Counter()
pinned: dict[int, torch.Tensor] = {}


class Elsewhere(torch.Tensor):
    """Tensor on the device; its numbers are in `host`, on the CPU."""

    host: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        strides = inner.stride()
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=strides, dtype=inner.dtype, device=DEVICE
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.host = inner

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch calls it without instances
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return run(function, *args, **(kwargs or {}))


def wait(reason: str) -> None:
    """Record that the host waits, and the line of the package."""
    for frame in reversed(traceback.extract_stack()):
        if "/splatrender/" in frame.filename:
            file = frame.filename.rpartition("/splatrender/")[2]
            waits[f"{file}:{frame.lineno}: {reason}: {frame.line}"] += 1
            return
    waits[reason] += 1


def run(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operation on the tensors of the CPU, and put its results on the device."""
    name, tensors = function.name(), [t for t in tree_leaves((args, kwargs)) if is_tensor(t)]
    ours = {id(t.host): t for t in tensors if isinstance(t, Elsewhere)}
    if name == "aten::copy_":
        check_copy(args[0], args[1], non_blocking=len(args) > 2 and args[2])
    elif name == "aten::_to_copy" and kwargs.get("device", DEVICE).type == "cpu":
        wait(f"copy of {args[0].dtype} to the host")
        return function(args[0].host, *args[1:], **kwargs)
    elif name in INDEX:
        for index in (index for index in args[1] if index is not None):
            if not isinstance(index, Elsewhere):
                wait("copy of an index")
            elif index.dtype == torch.bool:
                wait("index by a mask")
    elif any(t.dim() and not isinstance(t, Elsewhere) for t in tensors):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")
    if name in WAITING:
        wait(name)

    def real(x: Any) -> Any:
        if isinstance(x, torch.device) and x == DEVICE:
            return torch.device("cpu")
        return x.host if isinstance(x, Elsewhere) else x

    def elsewhere(x: Any) -> Any:
        return x if not is_tensor(x) else ours[id(x)] if id(x) in ours else Elsewhere(x)

    result = function(*tree_map(real, args), **tree_map(real, kwargs))
    if any(t.shape != t.host.shape for t in ours.values()):
        raise RuntimeError(f"{name}: changes the size of a tensor, which is not pretended")
    return args[0] if name == "aten::copy_" else tree_map(elsewhere, result)


def check_copy(target: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> None:
    """Record the wait of a copy."""
    if not isinstance(target, Elsewhere):
        wait(f"copy of {source.dtype} to the host")
    elif not isinstance(source, Elsewhere) and not (non_blocking and source.data_ptr() in pinned):
        wait("copy from memory that is not pinned")


def host_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the numbers of a tensor on the device."""
    detached = tensor.detach()
    assert isinstance(detached, Elsewhere)
    return detached.host


def is_tensor(x: Any) -> bool:
    """Return True for tensors of both devices."""
    return isinstance(x, torch.Tensor)


class Generator(torch.Generator):
    """Random numbers of the device: those of the CPU."""

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        return super().__new__(cls)

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._device


def pretend() -> None:
    """Patch the functions of torch that do not go through its dispatcher."""
    tolist, tensor, getitem = torch.Tensor.tolist, torch.tensor, torch.Tensor.__getitem__

    def listed(self: torch.Tensor) -> Any:
        if not isinstance(self, Elsewhere):
            return tolist(self)
        wait("tolist")
        return tolist(self.host)

    def new(self: torch.Tensor, data: Any, **kwargs: Any) -> torch.Tensor:
        return torch.tensor(data, dtype=kwargs.get("dtype", self.dtype), device=self.device)

    def made(data: Any, *, device: Any = None, **kwargs: Any) -> torch.Tensor:
        if device is None or torch.device(device) != DEVICE:
            return tensor(data, device=device, **kwargs)
        wait("copy from memory that is not pinned")
        return Elsewhere(tensor(data, **kwargs))

    def at(self: torch.Tensor, index: Any) -> torch.Tensor:
        def sent(part: Any) -> Any:
            return torch.tensor(part, device=self.device) if isinstance(part, list) else part

        if isinstance(self, Elsewhere):
            index = tuple(map(sent, index)) if isinstance(index, tuple) else sent(index)
        return getitem(self, index)

    def pin(self: torch.Tensor) -> torch.Tensor:
        copy = self.clone()
        pinned[copy.data_ptr()] = copy
        return copy

    methods = {"tolist": listed, "new_tensor": new, "__getitem__": at, "pin_memory": pin}
    functions = {"tensor": made, "Generator": Generator}
    for owner, patches in ((torch.Tensor, methods), (torch, functions)):
        for name, patch in patches.items():
            setattr(owner, name, patch)
    everything, aten = (torch.library.Library(name, "IMPL") for name in ("_", "aten"))
    everything.fallback(run, "PrivateUse1")
    aten.impl("arange.start", partial(run, torch.ops.aten.arange.start), "PrivateUse1")
    aten.impl("arange", partial(run, torch.ops.aten.arange.default), "PrivateUse1")
    registered.extend((everything, aten))


registered: list[torch.library.Library] = []  # for as long as the process lives


@contextmanager
def counted(result: dict[str, Any], key: str) -> Iterator[None]:
    """Store the waits of the block under `key`."""
    waits.clear()
    yield
    result[key] = dict(waits.most_common())


def begun(folder: Path, device: torch.device, **changes: Any) -> Run:
    """Return a run after three steps."""
    settings: dict[str, Any] = {"iterations": 7000, "max_splats": 300, "random_init": True}
    run = Run(options(folder, **{**settings, **changes}), ring_scene(), device)
    for _ in range(3):
        run.step()
    return run


def swept(folder: Path, device: torch.device, views: int) -> tuple[Run, ExchangeStrategy]:
    """Return a run that is at its first sweep, and the strategy that sweeps."""
    run = begun(folder, device, strategy="none")
    strategy = ExchangeStrategy(7000, 300, config=ExchangeConfig(views=views, ray_views=views))
    run.state.generator = Generator(device).manual_seed(5)
    run.state.iteration = strategy.interval
    return run, strategy


def main() -> None:
    """Count the waits of steps by strategy and transport, and of sweeps by number of views."""
    pretend()
    result: dict[str, Any] = {"steps": {}, "sweeps": {}, "report": {}, "same": {}}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("none", "mcmc", "adc", "adc-absgrad", "wfr"):
            run = begun(folder, DEVICE, strategy=name)
            with counted(result["steps"], name):
                for _ in range(5):
                    run.step()
        for transport in ("wasserstein", "wasserstein-scaled"):
            run = begun(folder, DEVICE, transport=transport)
            with counted(result["steps"], transport):
                for _ in range(5):
                    run.step()
        for views in (2, 6):
            run, strategy = swept(folder, DEVICE, views)
            here, _ = swept(folder, torch.device("cpu"), views)
            with counted(result["sweeps"], str(views)):
                report = strategy.step(run.state)
            strategy.step(here.state)
            assert report is not None
            born, trials = report.born + report.relocated, report.trials
            result["report"][views] = [report.probes["ray"], born, trials]
            result["same"][views] = all(
                torch.equal(host_of(tensor), dict(here.state.splats.items())[name].detach())
                for name, tensor in run.state.splats.items()
            )
        with counted(result, "picture"):
            to_uint8(run.image(run.scene.train[0].camera))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
