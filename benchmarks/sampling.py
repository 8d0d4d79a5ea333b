"""The cost of exact sampling: against the common practice, its limit, by map size, in memory.

    python benchmarks/sampling.py                      # all, about 8 minutes on two cores
    python benchmarks/sampling.py --parts limit growth

The model is a hierarchy for one 256x256 image: codes 32x32 with attention, then 64x64, both
priors of 80 to 90 million parameters, random weights (speed does not depend on them).

- exact: at a small size, float64: the same seeds give the same maps by cached steps and by whole
  passes.
- practice: the codes of one image. Our time is measured completely. The common practice computes
  a complete pass over rows 0..i for each position of row i, with the conditioning cached; it is
  timed at some rows, interpolated and summed.
- limit: time per position over the time of that position's matrix products alone, with the same
  weights and batch, in float32; also with bfloat16 weights. The products of the steps of one row
  are recorded and run again alone.
- growth: time per position on 64x64 over 16x16; with attention, by the number of keys.
- memory: bytes of the cache per image.
- gpu: ms per position and images/s at batch 1, 64 and 512, and the ratio to reading the weights
  once from memory.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from matrix_products import ProductRecorder, replay
from processes import write_results
from torch import Tensor

from vqvae2.cli.display import console, table
from vqvae2.code_grid import CodeGrid
from vqvae2.precision import in_bfloat16
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior, PriorConfig, TransformerConfig
from vqvae2.priors.prior import PriorCache
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
        parts: Parts to measure; all by default.
        batches: Images at a time.
        rows: Rows per map at which the common practice is timed.
        out: JSON file.
    """

    parts: tuple[Part, ...] = ("exact", "practice", "limit", "growth", "memory", "gpu")
    batches: tuple[int, ...] = (1, 16)
    rows: int = 5
    out: Path = Path("build/sampling.json")


def new_prior(config: PriorConfig, grid: CodeGrid, coarser: tuple[CodeGrid, ...] = ()) -> Prior:
    torch.manual_seed(0)
    domain = Domain(grid=grid, coarser=coarser, num_classes=10)
    return Prior(config, domain).eval()


def hierarchy() -> list[Prior]:
    return [new_prior(TOP, COARSE), new_prior(LARGE, FINE, (COARSE,))]


def num_millions(prior: Prior) -> float:
    return sum(p.numel() for p in prior.parameters()) / 1e6


def context_of(prior: Prior, batch: int) -> Tensor:
    coarser = [torch.zeros(batch, *grid.shape, dtype=torch.int64) for grid in prior.domain.coarser]
    return prior.embed_context(torch.zeros(batch, dtype=torch.int64), coarser)


def seconds(action: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start


def exhaust(items: Iterable[object]) -> None:
    for _ in items:
        pass


def new_cache(prior: Prior, batch: int) -> PriorCache:
    return prior.new_cache(context_of(prior, batch), batch)


def steps(prior: Prior, batch: int, cache: PriorCache, first: int, count: int) -> None:
    """`count` steps with sampling, as the sampler takes them, from position `first` on.

    The content of the buffers does not change the time of a step, so the cache moves to `first`.
    """
    position = cache.position
    cache.index = first
    position.move_to(first)
    previous, noise = torch.zeros(batch, dtype=torch.int64), torch.full((batch,), 0.5).double()
    for _ in range(count):
        previous = sample_codes(prior.step(cache, previous), noise, SamplingConfig())


def exact() -> dict[str, Any]:
    """Whether cached steps and complete passes give equal maps."""
    same = []
    for grid, coarser, config in [
        (CodeGrid(512, 6, 6), (), replace(TOP, num_layers=5, num_output_blocks=2)),
        (CodeGrid(512, 12, 12), (CodeGrid(512, 6, 6),), replace(LARGE, num_layers=4)),
    ]:
        small = replace(config, channels=32, residual_channels=48)
        prior = new_prior(small, grid, coarser).double()
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
    console.print(f"cached steps and complete passes give equal maps, float64: {same}")
    return {"equal_maps": same}


def practice(options: Options) -> dict[str, Any]:
    """The codes of one image: ours measured completely, the common practice at some rows."""
    priors, lines, result = hierarchy(), [], {}
    for batch in options.batches:
        ours, theirs = [], []
        for prior in priors:
            context = context_of(prior, batch)
            noise = uniforms(range(batch), prior.domain.num_values, 0)
            ours.append(seconds(exhaust, sample_level(prior, context, noise, SamplingConfig())))
            theirs.append(complete_passes(prior, context, batch, options.rows))
        ratio = sum(theirs) / sum(ours)
        result[batch] = {"ours_s": ours, "practice_s": theirs, "ratio": ratio}
        cells = [*(f"{s:.1f}" for s in ours), *(f"{s:,.0f}" for s in theirs)]
        lines.append([f"{batch}", *cells, f"{ratio:.0f}"])
    sizes = ", ".join(f"{num_millions(prior):.1f} M" for prior in priors)
    columns = ["batch", "ours 32x32 s", "64x64 s", "practice 32x32 s", "64x64 s", "ratio"]
    table(f"codes of one 256x256 image (priors of {sizes} parameters)", columns, lines)
    return {"parameters_millions": [num_millions(p) for p in priors], "by_batch": result}


def complete_passes(prior: Prior, context: Tensor, batch: int, num_rows: int) -> float:
    """Seconds of a pass over rows 0..i for every position of row i, summed, from some rows."""
    height, width = prior.domain.grid.shape
    codes = torch.zeros(batch, height, width, dtype=torch.int64)
    rows = [round(i * (height - 1) / (num_rows - 1)) for i in range(num_rows)]
    times = []
    for row in rows:
        upper = context[:, :, : row + 1] if context.shape[2] > 1 else context
        times.append(seconds(prior, codes[:, : row + 1], upper))
    total = 0.0
    for row in range(height):
        before = max(i for i in range(num_rows) if rows[i] <= row)
        after = min(before + 1, num_rows - 1)
        weight = (row - rows[before]) / max(1, rows[after] - rows[before])
        total += width * (times[before] * (1 - weight) + times[after] * weight)
    return total


def limit(options: Options) -> dict[str, Any]:
    """Time per position over the time of its matrix products in float32."""
    cases = [
        ("86 M, 64x64", new_prior(LARGE, FINE, (COARSE,))),
        ("84 M, 32x32, attention", new_prior(TOP, COARSE)),
        ("1.9 M, 16x16", new_prior(SMALL, CodeGrid(512, 16, 16))),
    ]
    lines, result = [], {}
    for name, prior in cases:
        for batch in options.batches:
            step, products, low = step_times(prior, batch)
            result[f"{name}, batch {batch}"] = {
                "parameters_millions": num_millions(prior),
                "step_ms": 1e3 * step,
                "products_ms": 1e3 * products,
                "bfloat16_step_ms": 1e3 * low,
                "ratio": step / products,
                "bfloat16_ratio": low / products,
            }
            times = [f"{1e3 * t:.2f}" for t in (products, step, low)]
            ratios = [f"{step / products:.2f}", f"{low / products:.2f}"]
            lines.append([name, f"{batch}", *times, *ratios])
    columns = ["prior", "batch", "products", "fp32", "bf16", "fp32 ratio", "bf16 ratio"]
    table("ms of a position, and ratio to its float32 products", columns, lines)
    return result


def step_times(prior: Prior, batch: int) -> tuple[float, float, float]:
    """Seconds of a position, of its products alone, and of a position with bfloat16 weights.

    Measured over a row in the middle of the map: with attention, half of the keys are read.
    """
    width, low = prior.domain.grid.width, in_bfloat16(prior)
    middle = prior.domain.grid.height // 2 * width
    cache, low_cache, recorder = new_cache(prior, batch), new_cache(low, batch), ProductRecorder()
    with recorder:
        steps(prior, batch, cache, middle, width)
    # In turn, so that other load on the machine affects all.
    times = [
        (
            seconds(steps, prior, batch, cache, middle, width),
            seconds(replay, recorder.calls),
            seconds(steps, low, batch, low_cache, middle, width),
        )
        for _ in range(7)
    ]
    step, products, low_step = (min(column) / width for column in zip(*times, strict=True))
    return step, products, low_step


def growth(options: Options) -> dict[str, Any]:
    """Time per position by the size of the map."""
    result: dict[str, Any] = {}
    lines = []
    for name, config in [("no attention", LARGE), ("attention", TOP)]:
        priors = {side: new_prior(config, CodeGrid(512, side, side)) for side in (16, 64)}
        for batch in options.batches:
            caches = {side: new_cache(prior, batch) for side, prior in priors.items()}
            times: dict[int, list[float]] = {16: [], 64: []}
            # In turn, four rows of 16 and one of 64: other load on the machine affects both.
            for _ in range(5):
                for side, prior in priors.items():
                    middle = side * side // 2
                    elapsed = seconds(steps, prior, batch, caches[side], middle, 64)
                    times[side].append(elapsed / 64)
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
    """With attention: time per position by the number of keys and values that it reads."""
    prior, result, lines = new_prior(TOP, FINE), {}, []
    layers = sum(1 for layer in prior.network.layers if layer.attention is not None)
    for batch in options.batches:
        cache, curve = new_cache(prior, batch), []
        for row in (0, 8, 16, 24, 32, 40, 48, 56, 63):
            times = [seconds(steps, prior, batch, cache, row * 64, 64) / 64 for _ in range(2)]
            keys = row * 64 + 32
            num_bytes = keys * layers * 2 * TOP.channels * 4 * batch
            curve.append({"keys": keys, "MB_read": num_bytes / 1e6, "ms": 1e3 * min(times)})
            cells = [f"{keys:,}", f"{num_bytes / 1e6:.1f}", f"{1e3 * min(times):.2f}"]
            lines.append([f"{batch}", *cells])
        result[f"batch {batch}"] = curve
    columns = ["batch", "preceding keys", "MB of keys and values", "ms per position"]
    table(f"64x64 with {layers} attention layers", columns, lines)
    return result


def memory() -> dict[str, Any]:
    """Bytes of the cache per image, over all tensors in it."""
    lines, result = [], {}
    cases = [("32x32, attention", new_prior(TOP, COARSE))]
    cases += [("64x64", new_prior(LARGE, FINE, (COARSE,)))]
    cases += [("64x64, Transformer", new_prior(TransformerConfig(channels=512), FINE))]
    for name, prior in cases:
        sizes = [
            sum(t.numel() * t.element_size() for t in tensors(prior.new_cache(context, batch)))
            for batch in (1, 17)
            for context in [context_of(prior, batch)]
        ]
        each = (sizes[1] - sizes[0]) / 16
        result[name] = {"bytes_per_image": each}
        lines.append([name, f"{each / 2**20:.1f}"])
    table("memory of the cache", ["prior", "MiB per image"], lines)
    return result


def gpu() -> dict[str, Any]:
    """The same hierarchy on a GPU, with its steps as CUDA graphs."""
    if not torch.cuda.is_available():
        console.print(
            "No GPU. With one, this part measures ms per position and images/s at batch 1, 64 "
            "and 512, and the time per position over that of reading the weights once."
        )
        return {}
    priors, lines, result = [prior.cuda() for prior in hierarchy()], [], {}
    bandwidth = bytes_per_second()
    for batch in (1, 64, 512):
        times = []
        for prior in priors:
            coarser = [torch.zeros(batch, *g.shape).long().cuda() for g in prior.domain.coarser]
            context = prior.embed_context(torch.zeros(batch).long().cuda(), coarser)
            noise = uniforms(range(batch), prior.domain.num_values, 0)
            for _ in range(2):
                torch.cuda.synchronize()
                start = time.perf_counter()
                exhaust(sample_level(prior, context, noise, SamplingConfig()))
                torch.cuda.synchronize()
                elapsed = time.perf_counter() - start
            times.append(elapsed)
        positions = [prior.domain.num_values for prior in priors]
        each = [1e3 * s / n for s, n in zip(times, positions, strict=True)]
        reading = [4e3 * weights_per_position(prior) / bandwidth for prior in priors]
        ratios = [a / b for a, b in zip(each, reading, strict=True)]
        result[batch] = {
            "ms_per_position": each,
            "images_per_second": batch / sum(times),
            "over_reading_the_weights": ratios,
        }
        cells = [f"{v:.3f}" for v in each] + [f"{r:.1f}" for r in ratios]
        lines.append([f"{batch}", *cells, f"{batch / sum(times):.2f}"])
    columns = ["batch", "ms 32x32", "ms 64x64", "over reading", "over reading", "images/s"]
    table(torch.cuda.get_device_name(), columns, lines)
    return result


def weights_per_position(prior: Prior) -> int:
    """Weights that each step reads: all but those used once per row or once per image."""
    seldom = ("conditioning", "vertical", "link", "horizontal_bias", "position", "vectors")
    named = prior.named_parameters()
    return sum(p.numel() for name, p in named if not any(word in name for word in seldom))


def bytes_per_second() -> float:
    """Bandwidth of the GPU's memory, by summing a gigabyte."""
    numbers = torch.ones(2**28, device="cuda")
    numbers.sum()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        numbers.sum()
    torch.cuda.synchronize()
    return 10 * 4 * 2**28 / (time.perf_counter() - start)


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
    parts: dict[str, Callable[[], dict[str, Any]]] = {
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
        results[part] = parts[part]()
        write_results(options.out, results)
    console.print(f"All results are in {options.out}.")


if __name__ == "__main__":
    main()
