"""What the precision "auto" means for the steps of a stage: chosen once and kept in its run.

A GPU has a fixed answer. A CPU is measured: some compute convolutions in bfloat16 at twice the
rate of float32, others at a fraction of it, and small layers gain little anywhere. The gradient of
the stage's own model is timed in both precisions, in turns. The choice is written into the run
folder, because training that resumes must compute as before, whatever the machine is busy with.
"""

import time
from dataclasses import dataclass

import torch

from vqvae2.nn.recompute import recompute_blocks
from vqvae2.precision import FixedPrecision, has_bfloat16, resolve
from vqvae2.runs.folder import StagePrecision
from vqvae2.training.loop import Output, Part, Task
from vqvae2.training.session import TrainingSession
from vqvae2.training.speed import compute_gradients

REQUIRED_SPEEDUP = 1.15
"""bfloat16 rounds: it is used only where it is clearly faster than float32."""

MIN_ROUNDS, MIN_SECONDS = 3, 0.5
"""Of a measurement, both at least: on a busy machine the best of many is what repeats."""

MIN_STEPS = 100
"""Training of fewer steps is over before a measurement pays."""


@dataclass(frozen=True)
class Timing:
    """Seconds per gradient of one part in both precisions, the sum over all processes."""

    float32: float
    bfloat16: float

    @property
    def speedup(self) -> float:
        """Speed in bfloat16 / speed in float32."""
        return self.float32 / self.bfloat16


def choose_precision(
    session: TrainingSession, stage: str, task: Task[Part, Output]
) -> tuple[FixedPrecision, str]:
    """The precision of a stage's training steps, the same on all processes.

    Returns:
        The precision, and a sentence for the user if it was chosen now.
    """
    precision, world = session.config.precision, session.world
    if precision != "auto":
        return precision, ""
    # The main process reads for all: it may write before another process has read.
    chosen = world.gather_objects([session.folder.read_precisions().get(stage)])[0]
    lacks_bfloat16 = world.any(not has_bfloat16(session.device))
    # A run that continues on another machine must not compute in what this one only emulates.
    if chosen is not None and not (chosen.precision == "bfloat16" and lacks_bfloat16):
        return chosen.precision, ""
    # A checkpoint without a choice is of a version for which "auto" on a CPU was float32.
    has_begun = world.any(any(session.folder.checkpoints(stage).glob("*.safetensors")))
    chosen = fixed_choice(session.device) if has_begun else new_choice(session, task)
    if world.is_main:
        session.folder.add_precision(stage, chosen)
    text = f"{stage}: {chosen.reason}" if chosen.reason else ""
    return chosen.precision, text


def new_choice(session: TrainingSession, task: Task[Part, Output]) -> StagePrecision:
    """What "auto" means for a stage that has not begun, the same on all processes."""
    device, world = session.device, session.world
    measures = device.type == "cpu" and task.training.steps >= MIN_STEPS
    if not measures or world.any(not has_bfloat16(device)):
        return fixed_choice(device)
    local = torch.tensor([measure(task, device)], dtype=torch.float64)
    return measured_choice(Timing(*world.gather(local).sum(dim=0).tolist()), world.size)


def fixed_choice(device: torch.device) -> StagePrecision:
    """The choice that needs no measurement."""
    precision = resolve("auto", device)
    reason = ""
    if device.type == "cuda" and precision == "float32":
        reason = (
            "training in float32, as this GPU does not compute in bfloat16; --precision float16 "
            "is faster on most such GPUs."
        )
    return StagePrecision(precision=precision, reason=reason)


def measured_choice(timing: Timing, num_processes: int = 1) -> StagePrecision:
    """The choice that follows from a measurement."""
    ms = [round(1000 * seconds / num_processes) for seconds in (timing.float32, timing.bfloat16)]
    measured = f"a gradient takes {ms[1]} ms in bfloat16 and {ms[0]} ms in float32 on this CPU"
    if timing.speedup >= REQUIRED_SPEEDUP:
        return StagePrecision(
            precision="bfloat16",
            reason=f"training in bfloat16: {measured}. The choice is kept in precision.json; "
            "--precision float32 avoids it in another run.",
        )
    return StagePrecision(
        precision="float32",
        reason=f"training in float32: {measured}, and bfloat16 must be {REQUIRED_SPEEDUP} times "
        "as fast.",
    )


def measure(task: Task[Part, Output], device: torch.device) -> tuple[float, float]:
    """Seconds per gradient of a part in float32 and in bfloat16, the best of some in turns.

    As in the last step of training, which has all terms of the loss. Changes no weight.
    """
    part, step = task.batch(0)[0], task.training.steps - 1
    precisions: tuple[FixedPrecision, ...] = ("float32", "bfloat16")
    seconds = {precision: float("inf") for precision in precisions}
    recomputing = [phase.module for phase in task.phases if phase.training.recompute]
    for module in recomputing:
        recompute_blocks(module)
    begin, number = time.perf_counter(), -1
    while number < MIN_ROUNDS or time.perf_counter() - begin < MIN_SECONDS:
        number += 1
        for precision in precisions:
            start = time.perf_counter()
            compute_gradients(task, part, step, precision, device)
            if number:  # the first one is slower
                seconds[precision] = min(seconds[precision], time.perf_counter() - start)
    for module in recomputing:
        recompute_blocks(module, recomputes=False)  # training sets it for itself
    return seconds["float32"], seconds["bfloat16"]
