"""A simulated GPU: tensors whose device is "cuda", computed on the CPU and counted.

Code that runs under `SimulatedCuda` takes its CUDA path. Each tensor on the simulated device wraps
a CPU tensor, so results have real values, and every operation passes through `__torch_dispatch__`,
where it is counted. A simulated CUDA graph records operations and repeats them on the recorded
tensors, as a real one does.

Not simulated: memory pools, streams, the choice of kernels, and autocast's CUDA lists, which are
replaced by those of the CPU.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest import mock

import torch
from torch import Tensor
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("cuda", 0)

READS = {
    "_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "_unique2",
    "unique_dim", "unique_consecutive", "is_nonzero", "histc",
}  # fmt: skip
"""Operations after which the host needs a value, or a size, from the device."""

NO_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach"}
NO_KERNEL |= {"_unsafe_view", "_reshape_alias", "lift_fresh", "alias"}


@dataclass
class Counts:
    """What the host asked of the device.

    Arguments:
        operations: kernels by name.
        reads: operations for whose result the host waited.
        blocking_copies: copies to the device from memory that is not pinned.
        copies: asynchronous copies to the device.
        mismatches: operations on tensors of both devices, which a GPU refuses.
        waits: events that the host waited for.
    """

    operations: Counter[str] = field(default_factory=Counter)
    reads: list[str] = field(default_factory=list)
    blocking_copies: list[str] = field(default_factory=list)
    copies: int = 0
    mismatches: list[str] = field(default_factory=list)
    waits: int = 0

    @property
    def num_operations(self) -> int:
        return self.operations.total()

    def require_asynchronous(self) -> None:
        """Fails if the host waited for the device, or a GPU would have refused an operation."""
        assert not self.reads, f"host reads: {self.reads}"
        assert not self.blocking_copies, f"blocking copies: {self.blocking_copies}"
        assert not self.mismatches, f"device mismatches: {self.mismatches}"


def caller() -> str:
    """The innermost line of the package that is being executed."""
    lines = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_stack(limit=80)
        if "/vqvae2/" in frame.filename and "/site-packages/" not in frame.filename
    ]
    return f"at {lines[-1]}" if lines else "outside of the package"


class DeviceTensor(torch.Tensor):
    """A tensor on the simulated device; `host` holds its values."""

    host: Tensor
    simulation: "SimulatedCuda"
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor, simulation: "SimulatedCuda") -> Self:
        made = torch.Tensor._make_wrapper_subclass(
            cls, host.shape, strides=host.stride(), storage_offset=host.storage_offset(),
            dtype=host.dtype, device="cpu", requires_grad=False,
        )  # fmt: skip
        made.host, made.simulation = host, simulation
        return made

    @property
    def device(self) -> torch.device:
        return DEVICE

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "DeviceTensor":
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copied._is_param = True
        return memo.setdefault(id(self), copied)

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, DeviceTensor)]
        return tensors[0].simulation.run(func, args, dict(kwargs or {}))


@dataclass
class Recording:
    """The operations of a simulated CUDA graph."""

    calls: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = field(default_factory=list)
    overwritten: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def replay(self) -> None:
        for func, args, kwargs, outputs in self.calls:
            results = [r for r in tree_flatten(func(*args, **kwargs))[0] if isinstance(r, Tensor)]
            for output, result in zip(outputs, results, strict=True):
                if output is not result:
                    output.copy_(result)

    def undo(self) -> None:
        """Recording executes nothing on a GPU: restores what was overwritten."""
        for tensor, before in reversed(self.overwritten):
            tensor.copy_(before)


class SimulatedGraph(Recording):
    """Takes the place of `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        super().__init__()


class SimulatedCuda(TorchFunctionMode):
    """Within it, tensors can be moved to "cuda"; `counts` is what happened since `reset`."""

    def __init__(self) -> None:
        super().__init__()
        self.counts, self.num_graphs, self.num_replays = Counts(), 0, 0
        self.recording: Recording | None = None
        self.makes_masks = False
        self.pinned: set[int] = set()
        self.alive: list[Tensor] = []
        self.patches = ExitStack()

    def reset(self) -> None:
        self.counts = Counts()

    def __enter__(self) -> Self:
        for target, name, value in self._replacements():
            self.patches.enter_context(mock.patch.object(target, name, value))
        # A module's parameters become others on the device, as their class is another.
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        restore = torch.__future__.set_overwrite_module_params_on_conversion
        self.patches.callback(restore, overwrite)
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self.patches.close()

    def _replacements(self) -> Iterator[tuple[Any, str, Any]]:
        """What of torch asks for a real GPU."""
        autocast = torch.autocast.__init__

        def autocast_on_cpu(context: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
            device_type = "cpu" if device_type == "cuda" else device_type
            autocast(context, device_type, *args, **kwargs)

        simulation = self

        class Graph(SimulatedGraph):
            def replay(self) -> None:
                simulation.num_replays += 1
                super().replay()

        class Event:
            def record(self) -> None: ...

            def synchronize(self) -> None:
                simulation.counts.waits += 1

        yield torch.autocast, "__init__", autocast_on_cpu
        for read in (torch.is_autocast_enabled, torch.get_autocast_dtype):
            yield torch, read.__name__, lambda device="cpu", read=read: read("cpu")
        yield torch.Tensor, "pin_memory", lambda tensor: simulation.pin(tensor)
        yield torch.Tensor, "is_pinned", lambda tensor: id(tensor) in simulation.pinned
        yield torch.cuda, "is_available", lambda: True
        yield torch.cuda, "CUDAGraph", Graph
        yield torch.cuda, "graph", self.graph
        yield torch.cuda, "device", lambda device: nullcontext()
        yield torch.cuda, "graph_pool_handle", lambda: (0, 0)
        yield torch.cuda, "Stream", lambda device=None: object()
        yield torch.cuda, "Event", Event
        group = _foreach_utils._group_tensors_by_device_and_dtype

        def group_on_device(tensors: Any, with_indices: bool = False) -> Any:
            is_simulated = any(isinstance(t, DeviceTensor) for t in tree_flatten(tensors)[0])
            groups = group(tensors, with_indices)
            return {(DEVICE if is_simulated else d, t): v for (d, t), v in groups.items()}

        for module in (clip_grad, _foreach_utils):
            yield module, group.__name__, group_on_device
        types = [*_foreach_utils._foreach_supported_types, DeviceTensor]
        yield _foreach_utils, "_foreach_supported_types", types

    def pin(self, tensor: Tensor) -> Tensor:
        copy = tensor.clone()
        self.pinned.add(id(copy))
        self.alive.append(copy)  # so that no other tensor gets its id
        return copy

    @contextmanager
    def graph(self, graph: SimulatedGraph, **options: Any) -> Iterator[None]:
        """Records into a graph."""
        assert self.recording is None
        # A weight that autocast has cast once would be read by replays when it is long freed.
        assert not (torch.is_autocast_enabled("cuda") and torch.is_autocast_cache_enabled())
        self.recording, self.num_graphs = graph, self.num_graphs + 1
        try:
            yield
        finally:
            self.recording = None
        graph.undo()

    # --- moving between devices

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if args and isinstance(args[0], Tensor) and name in ("to", "cpu", "cuda"):
            return self.move(func, name, args, kwargs)
        if name in ("tolist", "numpy", "item") and isinstance(args[0], DeviceTensor):
            if name != "item":
                self.counts.reads.append(f"{name} {caller()}")
                return func(args[0].host, *args[1:], **kwargs)
        if name == "scaled_dot_product_attention":
            # It makes masks itself, on the host here and on the device of its inputs on a GPU.
            self.makes_masks = True
            try:
                return func(*args, **kwargs)
            finally:
                self.makes_masks = False
        device = kwargs.get("device")
        if device is None or torch.device(device).type == "meta":
            return func(*args, **kwargs)
        tensors = [a for a in tree_flatten(args)[0] if isinstance(a, Tensor)]
        if torch.device(device).type == "cpu":
            assert not any(isinstance(t, DeviceTensor) for t in tensors), name
            return func(*args, **kwargs)
        kwargs["device"] = "cpu"
        if any(isinstance(t, DeviceTensor) for t in tensors):
            return func(*args, **kwargs)
        if name in ("tensor", "as_tensor", "from_numpy"):
            self.counts.blocking_copies.append(f"{name} {caller()}")
        return self.factory(func, name, args, kwargs)

    def factory(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Tensor:
        requires_grad = kwargs.pop("requires_grad", False)
        host = func(*args, **kwargs)
        if name not in NO_KERNEL:
            self.counts.operations[name] += 1
        if self.recording is not None:
            self.recording.calls.append((func, args, kwargs, [host]))
        return DeviceTensor(host, self).requires_grad_(requires_grad)

    def move(self, func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> Tensor:
        tensor, rest = args[0], args[1:]
        if name == "to" and rest and isinstance(rest[0], Tensor):
            rest = (rest[0].device, rest[0].dtype, *rest[1:])
        if name == "cpu":
            rest = ("cpu",)
        if name == "cuda":
            rest = ("cuda", *rest)
        copy = kwargs.pop("copy", False)
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*rest, **kwargs)
        options = {"memory_format": layout} if layout is not None else {}
        on_device = isinstance(tensor, DeviceTensor)
        if device is None or (device.type == "cuda") == on_device:
            return torch.Tensor.to(tensor, dtype=dtype or tensor.dtype, copy=copy, **options)
        if not on_device:
            return self.to_device(tensor, dtype, non_blocking, options)
        assert self.recording is None, "a graph cannot record a copy to the host"
        if not non_blocking:
            self.counts.reads.append(f"copy of {tuple(tensor.shape)} to the host {caller()}")
        return tensor.detach().host.to(dtype=dtype or tensor.dtype, copy=True, **options)

    def to_device(
        self, tensor: Tensor, dtype: torch.dtype | None, non_blocking: bool, options: Any
    ) -> Tensor:
        assert self.recording is None, "a graph cannot record a copy from the host"
        if non_blocking and id(tensor) in self.pinned:
            self.counts.copies += 1
        else:
            self.counts.blocking_copies.append(f"{tuple(tensor.shape)} {tensor.dtype} {caller()}")
        host = tensor.detach().to(dtype=dtype or tensor.dtype, copy=True, **options)
        return DeviceTensor(host, self)

    # --- operations on the device

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation with at least one tensor on the device."""
        name = func.overloadpacket.__name__
        inputs = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, Tensor)]
        self.check_devices(name, inputs, args)
        if torch.device(kwargs.get("device") or "cpu").type == "cuda":
            kwargs["device"] = torch.device("cpu")
        wrappers = {id(t.host): t for t in inputs if isinstance(t, DeviceTensor)}
        if name in READS:
            self.counts.reads.append(f"{name} {caller()}")
            assert self.recording is None, f"a graph cannot record {name}"
        host_args, host_kwargs = tree_map_only(DeviceTensor, lambda t: t.host, (args, kwargs))
        if self.recording is not None:
            self.note_overwritten(func, host_args, host_kwargs)
        result = func(*host_args, **host_kwargs)
        outputs = [r for r in tree_flatten(result)[0] if isinstance(r, Tensor)]
        is_view = any(
            r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns
        )
        if not is_view and name not in NO_KERNEL:
            self.counts.operations[name] += 1
        if self.recording is not None and not is_view:
            self.recording.calls.append((func, host_args, host_kwargs, outputs))
        return tree_map_only(
            Tensor, lambda t: wrappers[id(t)] if id(t) in wrappers else self.wrap(t), result
        )

    def wrap(self, host: Tensor) -> DeviceTensor:
        return DeviceTensor(host, self)

    def check_devices(self, name: str, inputs: list[Tensor], args: tuple[Any, ...]) -> None:
        """Counts what an operation does with tensors on the host, and masks as indices."""
        on_host = [t for t in inputs if not isinstance(t, DeviceTensor)]
        if name in ("index", "index_put", "index_put_") and any(
            isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        ):
            self.counts.reads.append(f"{name} with a mask {caller()}")
        for tensor in on_host:
            if name in ("copy_", "_to_copy", "index", "index_put", "index_put_"):
                pinned = name == "copy_" and id(tensor) in self.pinned and True in args[2:]
                if pinned:
                    self.counts.copies += 1
                elif not (name == "copy_" and tensor.dim() == 0):
                    self.counts.blocking_copies.append(
                        f"{name} of {tuple(tensor.shape)} {caller()}"
                    )
            elif tensor.dim() and not self.makes_masks:
                self.counts.mismatches.append(
                    f"{name} with {tuple(tensor.shape)} on the host {caller()}"
                )

    def note_overwritten(self, func: Any, args: Any, kwargs: Any) -> None:
        assert self.recording is not None
        written = [
            args[i] if i < len(args) else kwargs.get(argument.name)
            for i, argument in enumerate(func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        for tensor in tree_flatten(written)[0]:
            if isinstance(tensor, Tensor):
                self.recording.overwritten.append((tensor, tensor.clone()))


class SimulatedAccelerator:
    """The part of accelerate's `Accelerator` that training uses, on the simulated device."""

    device = DEVICE

    def no_sync(self, module: torch.nn.Module) -> Any:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def prepare_model(self, module: torch.nn.Module) -> torch.nn.Module:
        return module
