"""Speed of training: images/s, and the fraction of the machine's rate of matrix products.

    python benchmarks/training.py

The loop is the real one (`vqvae2.training.loop`) on the built-in images. Model FLOPs are those of
convolutions and matrix products, forward and backward, as torch counts them; the peak is the best
rate of large matrix products in the same process, before and after. For comparison the plain form:
the same network, contiguous NCHW, Adam that is not fused, no loop around it. Each line is measured
in a process of its own, with its peak memory; the two precisions in one process, in turns. Prints
tables and writes JSON.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from accelerate import Accelerator
from processes import in_process, in_processes, peak_mib, write_results
from quantiser import compare_quantisers

from vqvae2.cli.display import console, table
from vqvae2.code_grid import CodeGrid
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.data.order import Shuffle
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.priors import Prior
from vqvae2.runs.presets import find_preset
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.autoencoder import AutoencoderTask, new_model
from vqvae2.training.loop import new_state, train
from vqvae2.training.prior import PriorTask
from vqvae2.training.speed import matrix_rate, measure_speed

SIDES = {32: ("cifar10", 32), 64: ("images64", 32), 128: ("images128", 8), 256: ("images128", 2)}
"""The preset and the batch for each side of the images."""

Metrics = dict[str, float]


@dataclass(frozen=True)
class Options:
    """Measure training.

    Arguments:
        sides: Sides of the images for the autoencoder: 32, 64, 128, 256.
        seconds: Seconds of training per line.
        parts: autoencoder, prior, precision (float32 and bfloat16 on the CPU), quantiser, ranks,
            gpu.
        out: JSON file.
    """

    sides: tuple[int, ...] = (32, 64, 256)
    seconds: float = 10.0
    parts: tuple[str, ...] = ("autoencoder", "prior", "precision", "quantiser", "ranks", "gpu")
    out: Path = Path("build/training.json")


@dataclass(frozen=True)
class Case:
    """One line of the table.

    Arguments:
        model: "autoencoder" or "prior".
        side: of the images.
        form: "ours" or "plain"; also "compiled", and on a GPU "bf16" and both.
        seconds: of training.
        device: "cpu" or "cuda".
        batch: examples per step; 0 is the usual number.
    """

    model: str
    side: int
    form: str
    seconds: float
    device: str = "cpu"
    batch: int = 0


class RandomCodes:
    """Random codes, for measurements of speed only."""

    def __init__(self, grids: list[CodeGrid], count: int) -> None:
        self.levels = [torch.randint(grid.num_codes, (count, *grid.shape)) for grid in grids]
        self.count, self.order = count, Shuffle(count)

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Codes of the given indices; labels are 0."""
        return [level[indices] for level in self.levels], torch.zeros_like(indices)


def measure(case: Case) -> Metrics:
    """Examples/s, FLOP/s over the peak, peak memory in MiB."""
    steps, batch = plain_steps(case) if case.form == "plain" else real_steps(case)
    dtype = torch.bfloat16 if "bf16" in case.form else torch.float32
    task = new_task(case)
    flops = batch * measure_speed(task, 1, Accelerator(cpu=case.device == "cpu")).flops
    del task
    for _ in range(3):  # the first steps are slower
        next(steps)
    matrix_rate.cache_clear()
    peak, done = matrix_rate(case.device, dtype), 0
    reset_peak_memory(case.device)
    start = synchronized_time(case.device)
    while (elapsed := synchronized_time(case.device) - start) < case.seconds:
        next(steps)
        done += 1
    memory = peak_mib()
    if case.device == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    matrix_rate.cache_clear()
    peak = max(peak, matrix_rate(case.device, dtype))
    return {
        "batch": batch,
        "examples_per_second": done * batch / elapsed,
        "gflops_per_example": flops / batch / 1e9,
        "gflops_per_second": flops * done / elapsed / 1e9,
        "peak_gflops_per_second": peak / 1e9,
        "peak_fraction": flops * done / elapsed / peak,
        "memory_mib": memory,
    }


def real_steps(case: Case) -> tuple[Iterator[object], int]:
    """The real loop, one step at a time, and its batch."""
    accelerator, task = Accelerator(cpu=case.device == "cpu"), new_task(case)
    state = new_state(task, "bfloat16" if "bf16" in case.form else "float32")
    return train(task, state, accelerator), task.training.batch


def new_task(case: Case, world: World = SINGLE_PROCESS) -> AutoencoderTask | PriorTask:
    return (
        autoencoder_task(case, world) if case.model == "autoencoder" else prior_task(case, world)
    )


def autoencoder_task(case: Case, world: World = SINGLE_PROCESS) -> AutoencoderTask:
    if case.side == 1024:
        run, usual = find_preset("ffhq1024")(), 4
    else:
        preset, usual = SIDES[case.side]
        run = find_preset(preset)()
    batch = case.batch or usual
    data = DataConfig(size=case.side, synthetic_images=4 * batch, validation_fraction=0.25)
    model = new_model(run).to(case.device, memory_format=torch.channels_last)
    training = replace(
        run.autoencoder.training,
        steps=1 << 30,
        batch=batch,
        accumulate=1,
        compile="compiled" in case.form,
    )
    stage = replace(run.autoencoder, training=training, continuous_steps=0)
    return AutoencoderTask(model, open_images(data).train, stage, seed=0, world=world)


def prior_task(case: Case, world: World = SINGLE_PROCESS) -> PriorTask:
    run = find_preset("images64")()
    batch = case.batch or 16
    prior = Prior(run.levels[1].prior, run.domain(1)).to(case.device)
    codes = RandomCodes(run.grids(), 4 * batch)
    training = TrainingConfig(steps=1 << 30, batch=batch, compile="compiled" in case.form)
    level = replace(run.levels[1], training=training)
    return PriorTask(prior, 1, codes, level, seed=0, world=world)


def plain_steps(case: Case) -> tuple[Iterator[object], int]:
    """The same autoencoder as most people write its training."""
    task = autoencoder_task(case)
    model = task.model.to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False, fused=False)
    images = task.dataset.batch(torch.arange(task.training.batch)).to(case.device).float() / 255
    noise = torch.Generator().manual_seed(0)

    def steps() -> Iterator[None]:
        while True:
            optimizer.zero_grad()
            result = model(images.contiguous())
            result.loss.backward()
            optimizer.step()
            model.update_codebooks(result.levels, noise)
            yield

    return steps(), task.training.batch


def reset_peak_memory(device: str) -> None:
    """Restarts the measurement of peak memory, so that it covers the steps alone."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def synchronized_time(device: str) -> float:
    """Seconds, once the device has finished all work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_precisions(case: Case) -> Metrics:
    """Examples/s of the real loop in float32 and in bfloat16, a second of each in turns."""
    loops, rates = {}, {"ours": [], "bf16": []}
    for form in rates:
        loops[form], batch = real_steps(replace(case, form=form))
        for _ in range(3):  # the first steps are slower
            next(loops[form])
    for _ in range(max(3, round(case.seconds))):
        for form, steps in loops.items():
            done, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < 1:
                next(steps)
                done += 1
            rates[form].append(done * batch / elapsed)
    ratios = [b / a for a, b in zip(rates["ours"], rates["bf16"], strict=True)]
    return {
        "batch": batch,
        "float32": statistics.median(rates["ours"]),
        "bfloat16": statistics.median(rates["bf16"]),
        "speedup": statistics.median(ratios),
        "lowest_speedup": min(ratios),
        "highest_speedup": max(ratios),
    }


def compare_precisions(cases: list[Case]) -> dict[str, object]:
    """One line per model and size."""
    results, rows = {}, []
    for case in cases:
        metrics = in_process(measure_precisions, case)
        results[f"precision {case.model} {case.side} {metrics['batch']:.0f}"] = metrics
        rates = [f"{metrics[name]:,.1f}" for name in ("float32", "bfloat16")]
        spread = f"{metrics['lowest_speedup']:.2f} to {metrics['highest_speedup']:.2f}"
        ratio = f"{metrics['speedup']:.2f}"
        rows.append([case.model, str(case.side), f"{metrics['batch']:.0f}", *rates, ratio, spread])
    columns = ["model", "side", "batch", "float32", "bfloat16", "speedup", "in rounds of 1 s"]
    title = f"examples/s in float32 and bfloat16, {torch.get_num_threads()} threads"
    table(title, columns, rows)
    return results


def measure_rate(model: str, side: int, seconds: float, threads: int) -> float:
    """Examples/s of the real loop, of all processes together."""
    torch.set_num_threads(threads)
    accelerator = Accelerator(cpu=True)
    world = World(accelerator.process_index, accelerator.num_processes)
    task = new_task(Case(model, side, "ours", seconds), world)
    steps = train(task, new_state(task), accelerator)
    for _ in range(3):
        next(steps)
    # As many steps on every process: they wait for one another.
    start = time.perf_counter()
    next(steps)
    each = torch.tensor(time.perf_counter() - start)
    count = int(max(5.0, seconds / float(accelerator.reduce(each, "mean"))))
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    return count * task.training.batch / (time.perf_counter() - start)


def compare_processes(seconds: float) -> dict[str, object]:
    """Two processes against one process with one thread and with two."""
    results, rows = {}, []
    for model in ("autoencoder", "prior"):
        one, two = (in_process(measure_rate, model, 64, seconds, threads) for threads in (1, 2))
        both = min(in_processes(2, measure_rate, model, 64, seconds, 1))
        results[model] = {"one_thread": one, "two_threads": two, "two_ranks": both}
        ratios = [f"{both / one:.2f}", f"{both / two:.2f}"]
        rows.append([model, f"{one:,.1f}", f"{two:,.1f}", f"{both:,.1f}", *ratios])
    columns = ["model", "1 thread", "2 threads", "2 processes", "over 1 thread", "over 2"]
    table("examples/s of the same joint batch", columns, rows)
    return {"ranks": results}


def compare_forms(cases: list[Case]) -> dict[str, object]:
    """One line per case."""
    results, rows = {}, []
    for case in cases:
        metrics = in_process(measure, case)
        name = f"{case.model} {case.side} {case.form} {case.device} {metrics['batch']:.0f}"
        results[name] = metrics
        rows.append(
            [case.model, str(case.side), case.form, f"{metrics['batch']:.0f}",
             f"{metrics['examples_per_second']:,.1f}", f"{metrics['gflops_per_example']:.2f}",
             f"{metrics['gflops_per_second']:,.0f} / {metrics['peak_gflops_per_second']:,.0f}",
             f"{metrics['peak_fraction']:.2f}", f"{metrics['memory_mib']:,.0f}"]
        )  # fmt: skip
    columns = ["model", "side", "form", "batch", "examples/s", "GFLOP per example",
               "GFLOP/s / peak", "fraction", "MiB"]  # fmt: skip
    table("training", columns, rows)
    return results


def cpu_cases(options: Options) -> list[Case]:
    cases = [
        Case("autoencoder", side, form, options.seconds, batch=batch)
        for side in options.sides
        # The preset of 64 takes batches of 16: less work beside the constant cost of a step.
        for batch in ((SIDES[side][1], 16) if side == 64 else (SIDES[side][1],))
        for form in ("ours", "compiled", "plain")
        if "autoencoder" in options.parts
    ]
    if "prior" in options.parts:
        cases.append(Case("prior", 64, "ours", options.seconds))
    return cases


def precision_cases(options: Options) -> list[Case]:
    cases = [
        Case("autoencoder", side, "ours", options.seconds, batch=16 if side == 64 else 0)
        for side in options.sides
    ]
    return [*cases, Case("prior", 64, "ours", options.seconds)]


def gpu_cases(seconds: float) -> list[Case]:
    return [
        Case("autoencoder", side, form, seconds, "cuda", batch)
        for side, batch in ((64, 512), (128, 128), (256, 64), (1024, 4))
        for form in ("ours", "bf16", "compiled", "bf16 compiled")
    ]


def main() -> None:
    options = tyro.cli(Options)
    results: dict[str, object] = {}
    if cases := cpu_cases(options):
        results |= compare_forms(cases)
    if "precision" in options.parts:
        results |= compare_precisions(precision_cases(options))
    if "quantiser" in options.parts:
        results |= compare_quantisers()
    if "ranks" in options.parts:
        results |= compare_processes(options.seconds)
    if "gpu" in options.parts:
        if torch.cuda.is_available():
            results |= compare_forms(gpu_cases(options.seconds))
        else:
            console.print(
                "No GPU. With one, this part measures images of 64, 128, 256 and 1024 pixels "
                "(three levels) in float32, bfloat16, compiled and both."
            )
    write_results(options.out, results)


if __name__ == "__main__":
    main()
