"""What exact sampling costs: against the common practice and its own limit, by size, in memory.

    python benchmarks/sampling.py                      # all, about 8 minutes on two cores
    python benchmarks/sampling.py --parts limit growth

The model is a hierarchy for one 256x256 image: codes 32x32 with attention, then 64x64, both
priors of 80 to 90 million parameters, random weights (speed does not depend on them).

- exact: at a small size, float64: the same seeds give the same maps by cached steps and by whole
  passes.
- practice: the codes of one image, ours measured whole; the common practice is a whole pass
  over rows 0..i for each position of row i, condition cached, timed at some rows and summed.
- limit: time a position over the time of that position's matrix products alone, same weights and
  batch. Recorded are the products of one row's steps; they are run again without anything else.
- growth: time a position on 64x64 over 16x16; with attention, time by the keys that are read.
- memory: bytes of the cache a image.
- gpu: milliseconds a position and images a second at batch 1, 64 and 512, and the ratio to
  reading the weights once from memory; without a GPU it says so.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vqvae2.cli.display import console, table
from vqvae2.code_grid import CodeGrid
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior, TransformerConfig
from vqvae2.sampling import SamplingConfig, sample_codes, sample_level, uniforms

Part = Literal["exact", "practice", "limit", "growth", "memory", "gpu"]

COARSE, FINE = CodeGrid(512, 32, 32), CodeGrid(512, 64, 64)
LARGE = GatedPixelCNNConfig(
    channels=256, residual_channels=352, num_layers=20, kernel=5, num_output_blocks=0,
    num_conditioning_blocks=8,
)  # fmt: skip
TOP = replace(LARGE, attention_every=5, num_heads=8, num_output_blocks=20)
SMALL = GatedPixelCNNConfig(
    channels=96, residual_channels=96, num_layers=8, kernel=3, num_conditioning_blocks=2
)


@dataclass(frozen=True)
class Options:
    """Measure sampling.

    Arguments:
        parts: Which parts; all by default.
        batches: Images at a time.
        rows: Rows at which the common practice is timed, a map.
        out: JSON file.
    """

    parts: tuple[Part, ...] = ("exact", "practice", "limit", "growth", "memory", "gpu")
    batches: tuple[int, ...] = (1, 16)
    rows: int = 5
    out: Path = Path("build/sampling.json")


@dataclass(frozen=True)
class Call:
    """A matrix product as it was called."""

    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


class Products(TorchDispatchMode):
    """Records the matrix products among all that runs under it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.calls.append(Call(func, args))
        elif name == "addmm":
            self.calls.append(Call(torch.mm, args[1:3]))
        elif name in ("convolution", "_mkldnn_convolution", "mkldnn_convolution"):
            self.calls.append(Call(func, args, kwargs or {}))
        elif name.startswith("_scaled_dot_product"):
            queries, keys, values = args[:3]
            logits = queries @ keys.transpose(2, 3)
            self.calls.append(Call(torch.matmul, (queries, keys.transpose(2, 3))))
            self.calls.append(Call(torch.matmul, (logits, values)))
        return func(*args, **(kwargs or {}))


def make(config: Any, grid: CodeGrid, coarser: tuple[CodeGrid, ...] = ()) -> Prior:
    torch.manual_seed(0)
    domain = Domain(grid=grid, coarser=coarser, num_classes=10)
    return Prior(config, domain).eval()


def hierarchy() -> list[Prior]:
    return [make(TOP, COARSE), make(LARGE, FINE, (COARSE,))]


def millions(prior: Prior) -> float:
    return sum(p.numel() for p in prior.parameters()) / 1e6


def context_of(prior: Prior, batch: int) -> Tensor:
    coarser = [torch.zeros(batch, *grid.shape, dtype=torch.int64) for grid in prior.domain.coarser]
    return prior.embed_context(torch.zeros(batch, dtype=torch.int64), coarser)


def seconds(action: Callable[..., Any], *arguments: Any) -> float:
    begun = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - begun


def exhaust(items: Iterator[Any]) -> None:
    for _ in items:
        pass


def new_cache(prior: Prior, batch: int) -> Any:
    return prior.new_cache(context_of(prior, batch), batch)


def steps(prior: Prior, batch: int, cache: Any, first: int, count: int) -> None:
    """`count` steps with drawing, as the sampler takes them, from position `first` on.

    What lies in the buffers does not change how long a step takes, so the cache may be put there.
    """
    place = cache.network.position
    cache.index = place.index = first
    place.flat_index.fill_(first)
    place.row.fill_(first // place.width)
    place.column.fill_(first % place.width)
    previous, noise = torch.zeros(batch, dtype=torch.int64), torch.full((batch,), 0.5).double()
    for _ in range(count):
        previous = sample_codes(prior.step(cache, previous), noise, SamplingConfig())


def exact() -> dict[str, Any]:
    """Cached steps against whole passes: the same maps?"""
    same = []
    for grid, coarser, config in [
        (CodeGrid(512, 6, 6), (), replace(TOP, num_layers=5, num_output_blocks=2)),
        (CodeGrid(512, 12, 12), (CodeGrid(512, 6, 6),), replace(LARGE, num_layers=4)),
    ]:
        small = replace(config, channels=32, residual_channels=48)
        prior = make(small, grid, coarser).double()
        context = context_of(prior, 4)
        noise = uniforms(range(4), prior.domain.num_values, 0)
        *_, fast = sample_level(prior, context, noise, SamplingConfig())
        slow = torch.zeros_like(fast)
        for position in range(prior.domain.num_values):
            logits = prior(slow, context).flatten(2)[..., position]
            slow.view(4, -1)[:, position] = sample_codes(
                logits, noise[:, position], SamplingConfig()
            )
        same.append(bool(torch.equal(fast, slow)))
    console.print(f"cached and whole-pass sampling give equal maps, float64: {same}")
    return {"equal_maps": same}


def practice(options: Options) -> dict[str, Any]:
    """The codes of one image: ours whole, the common practice at a spread of rows."""
    priors, lines, result = hierarchy(), [], {}
    for batch in options.batches:
        ours, theirs = [], []
        for prior in priors:
            context = context_of(prior, batch)
            noise = uniforms(range(batch), prior.domain.num_values, 0)
            ours.append(seconds(exhaust, sample_level(prior, context, noise, SamplingConfig())))
            theirs.append(whole_passes(prior, context, batch, options.rows))
        ratio = sum(theirs) / sum(ours)
        result[batch] = {"ours_s": ours, "practice_s": theirs, "ratio": ratio}
        shown = [*(f"{s:.1f}" for s in ours), *(f"{s:,.0f}" for s in theirs)]
        lines.append([f"{batch}", *shown, f"{ratio:.0f}"])
    sizes = ", ".join(f"{millions(prior):.1f} M" for prior in priors)
    columns = ["batch", "ours 32x32 s", "64x64 s", "practice 32x32 s", "64x64 s", "ratio"]
    table(f"codes of one 256x256 image (priors of {sizes} parameters)", columns, lines)
    return {"parameters_millions": [millions(p) for p in priors], "by_batch": result}


def whole_passes(prior: Prior, context: Tensor, batch: int, num_rows: int) -> float:
    """Seconds of a pass over rows 0..i for every position, from passes at a spread of i."""
    height, width = prior.domain.grid.shape
    codes = torch.zeros(batch, height, width, dtype=torch.int64)
    rows = [round(i * (height - 1) / (num_rows - 1)) for i in range(num_rows)]
    took = []
    for row in rows:
        cut = context[:, :, : row + 1] if context.shape[2] > 1 else context
        took.append(seconds(prior, codes[:, : row + 1], cut))
    total = 0.0
    for row in range(height):
        place = max(i for i in range(num_rows) if rows[i] <= row)
        after = min(place + 1, num_rows - 1)
        part = (row - rows[place]) / max(1, rows[after] - rows[place])
        total += width * (took[place] * (1 - part) + took[after] * part)
    return total


def limit(options: Options) -> dict[str, Any]:
    """Time a position over that of its matrix products."""
    cases = [
        ("80 M, 64x64, no attention", make(LARGE, FINE, (COARSE,))),
        ("80 M, 32x32, attention", make(TOP, COARSE)),
        ("2 M, 16x16, no attention", make(SMALL, CodeGrid(512, 16, 16))),
    ]
    lines, result = [], {}
    for name, prior in cases:
        width = prior.domain.grid.width
        for batch in options.batches:
            # The middle of the map: with attention, half of the keys are there to be read.
            middle = prior.domain.grid.height // 2 * width
            cache, recorder = new_cache(prior, batch), Products()
            with recorder:
                steps(prior, batch, cache, middle, width)
            whole, alone = [], []
            for _ in range(5):
                whole.append(seconds(steps, prior, batch, cache, middle, width) / width)
                alone.append(seconds(replay, recorder.calls) / width)
            step, products = min(whole), min(alone)
            result[f"{name}, batch {batch}"] = {
                "parameters_millions": millions(prior),
                "step_ms": 1e3 * step,
                "products_ms": 1e3 * products,
                "ratio": step / products,
            }
            lines.append(
                [f"{name} ({millions(prior):.1f} M)", f"{batch}", f"{1e3 * step:.2f}",
                 f"{1e3 * products:.2f}", f"{step / products:.2f}"]
            )  # fmt: skip
    columns = ["prior", "batch", "ms a position", "ms its products", "ratio"]
    table("distance to the limit", columns, lines)
    return result


def replay(calls: list[Call]) -> None:
    for call in calls:
        call.run(*call.arguments, **call.options)


def growth(options: Options) -> dict[str, Any]:
    """Time a position by the size of the map."""
    result: dict[str, Any] = {}
    lines = []
    for name, config in [("no attention", LARGE), ("attention", TOP)]:
        priors = {side: make(config, CodeGrid(512, side, side)) for side in (16, 64)}
        for batch in options.batches:
            caches = {side: new_cache(prior, batch) for side, prior in priors.items()}
            times: dict[int, list[float]] = {16: [], 64: []}
            # In turn, four rows of 16 against one of 64: the machine's mood hits both alike.
            for _ in range(5):
                for side, prior in priors.items():
                    middle = side * side // 2
                    took = seconds(steps, prior, batch, caches[side], middle, 64)
                    times[side].append(took / 64)
            small, large = min(times[16]), min(times[64])
            result[f"{name}, batch {batch}"] = {
                "ms_16": 1e3 * small, "ms_64": 1e3 * large, "ratio": large / small,
            }  # fmt: skip
            lines.append(
                [name, f"{batch}", f"{1e3 * small:.2f}", f"{1e3 * large:.2f}",
                 f"{large / small:.2f}"]
            )  # fmt: skip
    columns = ["prior", "batch", "ms on 16x16", "ms on 64x64", "ratio"]
    table("growth with the map, at its middle", columns, lines)
    return result | {"by_keys": by_keys(options)}


def by_keys(options: Options) -> dict[str, Any]:
    """With attention: time a position by the keys and values that it reads."""
    prior, result, lines = make(TOP, FINE), {}, []
    layers = sum(1 for layer in prior.network.layers if layer.attention is not None)
    for batch in options.batches:
        cache, curve = new_cache(prior, batch), []
        for row in (0, 8, 16, 24, 32, 40, 48, 56, 63):
            times = [seconds(steps, prior, batch, cache, row * 64, 64) / 64 for _ in range(2)]
            keys = row * 64 + 32
            read = keys * layers * 2 * TOP.channels * 4 * batch
            curve.append({"keys": keys, "MB_read": read / 1e6, "ms": 1e3 * min(times)})
            figures = [f"{keys:,}", f"{read / 1e6:.1f}", f"{1e3 * min(times):.2f}"]
            lines.append([f"{batch}", *figures])
        result[f"batch {batch}"] = curve
    columns = ["batch", "keys before", "MB of keys and values read", "ms a position"]
    table(f"64x64 with {layers} attentions", columns, lines)
    return result


def memory() -> dict[str, Any]:
    """Bytes of the caches a image, by counting and by the bytes of every tensor in them."""
    lines, result = [], {}
    cases = [("32x32, attention", make(TOP, COARSE))]
    cases += [("64x64", make(LARGE, FINE, (COARSE,)))]
    cases += [("64x64, Transformer", make(TransformerConfig(channels=512), FINE))]
    for name, prior in cases:
        sizes = [
            sum(t.numel() * t.element_size() for t in tensors(prior.new_cache(context, batch)))
            for batch in (1, 17)
            for context in [context_of(prior, batch)]
        ]
        each = (sizes[1] - sizes[0]) / 16
        result[name] = {"bytes_a_image": each}
        lines.append([name, f"{each / 2**20:.1f}"])
    table("memory of the cache", ["prior", "MiB a image"], lines)
    return result


def gpu() -> dict[str, Any]:
    """The same hierarchy on a GPU, its steps recorded as graphs."""
    if not torch.cuda.is_available():
        console.print(
            "no GPU here: this part would print milliseconds a position and images a second at "
            "batch 1, 64 and 512, and time a position over that of reading the weights once."
        )
        return {}
    priors, lines, result = [prior.cuda() for prior in hierarchy()], [], {}
    bandwidth = bytes_a_second()
    for batch in (1, 64, 512):
        took = []
        for prior in priors:
            coarser = [torch.zeros(batch, *g.shape).long().cuda() for g in prior.domain.coarser]
            context = prior.embed_context(torch.zeros(batch).long().cuda(), coarser)
            noise = uniforms(range(batch), prior.domain.num_values, 0)
            for _ in range(2):
                torch.cuda.synchronize()
                begun = time.perf_counter()
                exhaust(sample_level(prior, context, noise, SamplingConfig()))
                torch.cuda.synchronize()
                spent = time.perf_counter() - begun
            took.append(spent)
        positions = [prior.domain.num_values for prior in priors]
        each = [1e3 * s / n for s, n in zip(took, positions, strict=True)]
        reading = [4e3 * weights_a_position(prior) / bandwidth for prior in priors]
        ratios = [a / b for a, b in zip(each, reading, strict=True)]
        result[batch] = {
            "ms_a_position": each,
            "images_a_second": batch / sum(took),
            "over_reading_the_weights": ratios,
        }
        figures = [f"{v:.3f}" for v in each] + [f"{r:.1f}" for r in ratios]
        lines.append([f"{batch}", *figures, f"{batch / sum(took):.2f}"])
    columns = ["batch", "ms 32x32", "ms 64x64", "over reading", "over reading", "images/s"]
    table(torch.cuda.get_device_name(), columns, lines)
    return result


def weights_a_position(prior: Prior) -> int:
    """Numbers that a step must read: all weights but those used once a row or once a image."""
    seldom = ("conditioning", "vertical", "link", "horizontal_bias", "position", "vectors")
    named = prior.named_parameters()
    return sum(p.numel() for name, p in named if not any(word in name for word in seldom))


def bytes_a_second() -> float:
    """What the GPU's memory gives, by summing a gigabyte."""
    numbers = torch.ones(2**28, device="cuda")
    numbers.sum()
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(10):
        numbers.sum()
    torch.cuda.synchronize()
    return 10 * 4 * 2**28 / (time.perf_counter() - begun)


def tensors(cache: object) -> list[Tensor]:
    """All tensors inside a cache."""
    if isinstance(cache, Tensor):
        return [cache]
    if isinstance(cache, list | tuple):
        return [tensor for item in cache for tensor in tensors(item)]
    return [t for item in getattr(cache, "__dict__", {}).values() for t in tensors(item)]


def main() -> None:
    options = tyro.cli(Options)
    torch.set_grad_enabled(False)
    doers: dict[str, Callable[[], dict[str, Any]]] = {
        "exact": exact,
        "practice": lambda: practice(options),
        "limit": lambda: limit(options),
        "growth": lambda: growth(options),
        "memory": memory,
        "gpu": gpu,
    }
    results: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    for part in options.parts:
        results[part] = doers[part]()
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    console.print(f"all figures in {options.out}")


if __name__ == "__main__":
    main()
