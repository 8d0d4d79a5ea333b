"""Speed of training: images a second, and the share of the machine's own matrix products.

    python benchmarks/training.py

The loop is the real one (`vqvae2.training.loop`) on the built-in images. Model FLOPs are those
of convolutions and matrix products, forward and backward, as torch counts them; the peak is the
best rate of large matrix products in the same process, before and after. Beside it the plain form:
the same network, contiguous NCHW, Adam that is not fused, no loop around it. Each line is a
process of its own, whose peak memory is shown. Prints tables and writes JSON.
"""

import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from accelerate import Accelerator
from vqvae2.training.autoencoder_task import AutoencoderTask
from vqvae2.training.prior_task import PriorTask

from vqvae2.autoencoder.codebook import Codebook, CodebookConfig
from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.cli.display import console, table
from vqvae2.code_grid import CodeGrid
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.data.order import Shuffle
from vqvae2.priors import Prior
from vqvae2.runs.config import TrainingConfig
from vqvae2.runs.presets import find_preset
from vqvae2.training.loop import new_state, train
from vqvae2.training.speed import matrix_rate, measure_speed
from vqvae2.training.stages import seed_weights

SIDES = {32: ("cifar10", 32), 64: ("images64", 32), 128: ("images128", 8), 256: ("images128", 2)}
"""The preset and the batch for each side of the images."""

VECTORS, CODES, SIZE = 262_144, 512, 64


@dataclass(frozen=True)
class Options:
    """Measure training.

    Arguments:
        sides: Of images for the autoencoder: 32, 64, 128, 256.
        seconds: Of training, for each.
        parts: autoencoder, prior, quantiser, ranks, gpu.
        out: JSON file.
    """

    sides: tuple[int, ...] = (32, 64, 256)
    seconds: float = 10.0
    parts: tuple[str, ...] = ("autoencoder", "prior", "quantiser", "ranks", "gpu")
    out: Path = Path("build/training.json")


@dataclass(frozen=True)
class Case:
    """One line.

    Arguments:
        what: "autoencoder" or "prior".
        side: of the images.
        form: "ours" or "plain"; on a GPU also "bf16", "compiled" and both.
        seconds: of training.
        device: where.
        batch: examples a step; 0 is the usual one.
    """

    what: str
    side: int
    form: str
    seconds: float
    device: str = "cpu"
    batch: int = 0


class CodeNoise:
    """Codes at random, for speed alone."""

    def __init__(self, grids: list[CodeGrid], count: int) -> None:
        self.levels = [torch.randint(grid.num_codes, (count, *grid.shape)) for grid in grids]
        self.count, self.order = count, Shuffle(count)

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Some of them; labels are 0."""
        return [level[indices] for level in self.levels], torch.zeros_like(indices)


def measure(case: Case) -> dict[str, float]:
    """Examples a second, FLOPs a second over the peak, peak memory in MiB."""
    steps, batch = ours(case) if case.form != "plain" else plain(case)
    dtype = torch.bfloat16 if "bf16" in case.form else torch.float32
    task = stage1(case) if case.what == "autoencoder" else stage2(case)
    accelerator = Accelerator(cpu=case.device == "cpu")
    flops = batch * measure_speed(task, 1, accelerator).flops
    del task
    for _ in range(3):  # the first steps are slower
        next(steps)
    matrix_rate.cache_clear()
    peak, done = matrix_rate(case.device, dtype), 0
    forget_peak(case.device)
    begun = clock(case.device)
    while (spent := clock(case.device) - begun) < case.seconds:
        next(steps)
        done += 1
    memory = peak_mib()
    if case.device == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    matrix_rate.cache_clear()
    peak = max(peak, matrix_rate(case.device, dtype))
    return {
        "batch": batch,
        "examples_a_second": done * batch / spent,
        "gflops_an_example": flops / batch / 1e9,
        "gflops_a_second": flops * done / spent / 1e9,
        "peak_gflops_a_second": peak / 1e9,
        "share_of_peak": flops * done / spent / peak,
        "memory_mib": memory,
    }


def ours(case: Case) -> tuple[Iterator[Any], int]:
    """The real loop, a step at a time."""
    precision = "bf16" if "bf16" in case.form else "no"
    accelerator = Accelerator(cpu=case.device == "cpu", mixed_precision=precision)
    task = stage1(case) if case.what == "autoencoder" else stage2(case)
    if "compiled" in case.form:
        task.module.compile()
    return train(task, new_state(task), accelerator), task.config.batch


def stage1(case: Case) -> AutoencoderTask:
    name, batch = SIDES.get(case.side, ("ffhq1024", 1))
    batch = case.batch or batch
    run = find_preset(name)()
    data = DataConfig(size=case.side, synthetic_images=4 * batch, validation_fraction=0.25)
    seed_weights(0, "stage1")
    model = VQVAE(run.autoencoder).to(case.device, memory_format=torch.channels_last)
    config = replace(run.stage1.train, steps=1 << 30, batch=batch, accumulate=1)
    stage = replace(run.stage1, train=config, continuous_steps=0)
    return AutoencoderTask(model, open_images(data).train, stage, seed=0)


def stage2(case: Case) -> PriorTask:
    run = find_preset("images64")()
    batch = case.batch or 16
    prior = Prior(run.priors[1], run.domain(1)).to(case.device)
    codes = CodeNoise(run.grids(), 4 * batch)
    return PriorTask(prior, 1, codes, TrainingConfig(steps=1 << 30, batch=batch), seed=0)


def plain(case: Case) -> tuple[Iterator[Any], int]:
    """The same autoencoder as most people write its training."""
    task = stage1(case)
    model = task.module.to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False, fused=False)
    images = task.dataset.batch(torch.arange(task.config.batch)).to(case.device).float() / 255
    noise = torch.Generator().manual_seed(0)

    def steps() -> Iterator[None]:
        while True:
            optimizer.zero_grad()
            result = model(images.contiguous())
            result.loss.backward()
            optimizer.step()
            model.update_codebooks(result.levels, noise)
            yield

    return steps(), task.config.batch


def peak_mib() -> float:
    """MiB of this process at its peak; unlike `ru_maxrss` without those of who started it."""
    status = Path("/proc/self/status").read_text().split()
    return float(status[status.index("VmHWM:") + 1]) / 1024


def forget_peak(device: str) -> None:
    """Begins anew to measure peak memory: what came before is not the steps'."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def clock(device: str) -> float:
    """Seconds, when all work of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def search(form: str) -> dict[str, float]:
    """Seconds of quantising and summing, and MiB beyond input and output."""
    torch.manual_seed(0)
    x = torch.randn(VECTORS // 4096, SIZE, 64, 64)
    codebook = Codebook(CodebookConfig(num_codes=CODES, code_size=SIZE)).eval()
    noise = torch.Generator().manual_seed(0)

    def common() -> None:
        """Distances of all to all, and one-hot rows times the vectors, in both directions."""
        rows = x.movedim(1, -1).reshape(-1, SIZE)
        squares = rows.square().sum(1, keepdim=True) + codebook.vectors.square().sum(1)
        one_hot = F.one_hot((squares - 2 * rows @ codebook.vectors.T).argmin(1), CODES).float()
        (one_hot @ codebook.vectors).view(-1, 64, 64, SIZE).movedim(-1, 1).contiguous()
        one_hot.sum(0), one_hot.T @ rows

    def own() -> None:
        codebook.update(codebook(x), noise)

    step: Callable[[], None] = common if form == "common" else own
    before = peak_mib()
    with torch.no_grad():
        step()
        after = peak_mib()
        took = []
        for _ in range(5):
            begun = time.perf_counter()
            step()
            took.append(time.perf_counter() - begun)
    # The vectors and the codes are what was asked for.
    results = (x.numel() * 4 + VECTORS * 8) / 2**20
    return {"seconds": min(took), "temporaries_mib": after - before - results}


def pace(what: str, side: int, seconds: float, threads: int) -> float:
    """Examples a second of the real loop, of all ranks together."""
    torch.set_num_threads(threads)
    accelerator = Accelerator(cpu=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    case = Case(what, side, "ours", seconds)
    task: AutoencoderTask | PriorTask = stage1(case) if what == "autoencoder" else stage2(case)
    task.rank, task.world = rank, world
    steps = train(task, new_state(task), accelerator)
    for _ in range(3):
        next(steps)
    # As many steps on every rank: they wait for one another.
    begun = time.perf_counter()
    next(steps)
    each = torch.tensor(time.perf_counter() - begun)
    count = int(max(5.0, seconds / float(accelerator.reduce(each, "mean"))))
    begun = time.perf_counter()
    for _ in range(count):
        next(steps)
    return count * task.config.batch / (time.perf_counter() - begun)


def as_rank(rank: int, world: int, port: int, results: Any, function: Any, given: Any) -> None:
    """What a function returns in one of several processes that know of one another."""
    if world > 1:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world),
            "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
    results.put(function(*given))


def together(world: int, function: Callable[..., float], *given: Any) -> list[float]:
    """What a function returns in each of `world` processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    world = [
        context.Process(target=as_rank, args=(rank, world, port, results, function, given))
        for rank in range(world)
    ]
    for process in world:
        process.start()
    found = [results.get() for _ in world]
    for process in world:
        process.join()
    return found


def show_ranks(seconds: float) -> dict[str, Any]:
    """Two ranks beside one process of one thread, and of two."""
    found, rows = {}, []
    for what, side in (("autoencoder", 64), ("prior", 64)):
        one, two = (apart(pace, what, side, seconds, threads) for threads in (1, 2))
        both = min(together(2, pace, what, side, seconds, 1))
        found[what] = {"one_thread": one, "two_threads": two, "two_ranks": both}
        rows.append(
            [what, f"{one:,.1f}", f"{two:,.1f}", f"{both:,.1f}", f"{both / one:.2f}",
             f"{both / two:.2f}"]
        )  # fmt: skip
    columns = ["what", "1 thread", "2 threads", "2 ranks", "over 1 thread", "over 2"]
    table("examples a second of the same joint batch", columns, rows)
    return {"ranks": found}


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def show(cases: list[Case]) -> dict[str, Any]:
    found, rows = {}, []
    for case in cases:
        seen = apart(measure, case)
        found[f"{case.what} {case.side} {case.form} {case.device} {seen['batch']:.0f}"] = seen
        rows.append(
            [case.what, str(case.side), case.form, f"{seen['batch']:.0f}",
             f"{seen['examples_a_second']:,.1f}", f"{seen['gflops_an_example']:.2f}",
             f"{seen['gflops_a_second']:,.0f} / {seen['peak_gflops_a_second']:,.0f}",
             f"{seen['share_of_peak']:.2f}", f"{seen['memory_mib']:,.0f}"]
        )  # fmt: skip
    columns = ["what", "side", "form", "batch", "a second", "GFLOP each", "GFLOP/s / peak",
               "share", "MiB"]  # fmt: skip
    table("training", columns, rows)
    return found


def main() -> None:
    options = tyro.cli(Options)
    found: dict[str, Any] = {}
    cases = [
        Case("autoencoder", side, form, options.seconds, batch=batch)
        for side in options.sides
        # The preset of 64 itself takes steps of 16: less work beside what every step costs.
        for batch in ((SIDES[side][1], 16) if side == 64 else (SIDES[side][1],))
        for form in ("ours", "compiled", "plain")
        if "autoencoder" in options.parts
    ]
    if "prior" in options.parts:
        cases.append(Case("prior", 64, "ours", options.seconds))
    if cases:
        found |= show(cases)
    if "quantiser" in options.parts:
        forms = {form: apart(search, form) for form in ("ours", "common")}
        found["quantiser"] = forms
        rows = [
            [form, f"{1000 * seen['seconds']:.0f}", f"{seen['temporaries_mib']:.0f}"]
            for form, seen in forms.items()
        ]
        table(f"quantiser, {VECTORS:,} x {CODES} x {SIZE}", ["form", "ms", "MiB beside"], rows)
    if "ranks" in options.parts:
        found |= show_ranks(options.seconds)
    if "gpu" in options.parts:
        forms_gpu = ("ours", "bf16", "compiled", "bf16 compiled")
        on_gpu = [
            Case("autoencoder", side, form, options.seconds, "cuda", batch)
            for side, batch in ((64, 512), (128, 128), (256, 64), (1024, 4))
            for form in forms_gpu
        ]
        if torch.cuda.is_available():
            found |= show(on_gpu)
        else:
            console.print(
                "No GPU: there, the same table for images of 64, 128, 256 and 1024 (three "
                "levels) in float32, bfloat16, compiled and both."
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
