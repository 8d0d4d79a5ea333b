"""What the precision "auto" means for a stage: measured once, kept in the run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as multiprocessing
from accelerate import Accelerator
from gloo import free_port, join_group, leave_group
from small_runs import outcome, session, small_run, train, with_training
from torch import Tensor, nn
from training_tasks import RegressionTask

from vqvae2.nn.recompute import outermost_blocks
from vqvae2.nn.residual import ResidualStack
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder, StagePrecision
from vqvae2.runs.presets import PRESETS
from vqvae2.training import loop, precision_choice
from vqvae2.training.loop import Loss, Phase
from vqvae2.training.precision_choice import choose_precision, fixed_choice, measure
from vqvae2.training.session import Stopped, new_accelerator
from vqvae2.training.stages import forget_precisions, train_run

FAST, SLOW = (2.0, 1.0), (2.0, 1.9)
"""Seconds in float32 and bfloat16: bfloat16 is clearly faster, or not."""


@pytest.fixture
def timings(monkeypatch) -> Callable[..., list[str]]:
    """Replaces the measurement by given results; returns the list of the measured models."""

    def give(*results: tuple[float, float]) -> list[str]:
        measured: list[str] = []

        def measure(task: object, device: torch.device) -> tuple[float, float]:
            measured.append(type(task).__name__)
            return results[min(len(measured), len(results)) - 1]

        monkeypatch.setattr(precision_choice, "measure", measure)
        monkeypatch.setattr(precision_choice, "MIN_STEPS", 1)
        monkeypatch.setattr(precision_choice, "has_bfloat16", lambda device: True)
        return measured

    return give


def small(precision: str) -> RunConfig:
    """A run of two stages."""
    return replace(small_run((4,)), precision=precision)


def test_each_stage_trains_in_the_precision_that_was_measured_for_it(
    tmp_path, timings, monkeypatch
):
    measured, used = timings(FAST, SLOW), []

    def new_state(task, precision):
        used.append(precision)
        return loop.new_state(task, precision)

    monkeypatch.setattr("vqvae2.training.fit.new_state", new_state)
    folder = train(tmp_path, small("auto"))
    assert measured == ["AutoencoderTask", "PriorTask"]
    chosen = {name: choice.precision for name, choice in folder.read_precisions().items()}
    assert chosen == {"autoencoder": "bfloat16", "prior0": "float32"}
    assert used == ["bfloat16", "float32"]


def test_the_products_of_training_in_bfloat16_are_in_bfloat16():
    dtypes = []
    for precision in ("float32", "bfloat16"):
        state = loop.new_state(task := RegressionTask(), precision)
        task.network[0].register_forward_hook(lambda m, inputs, out: dtypes.append(out.dtype))
        next(loop.train(task, state, Accelerator(cpu=True)))
        assert all(p.dtype == torch.float32 for p in task.network.parameters())
    assert dtypes == [torch.float32, torch.bfloat16]


def test_where_float32_is_chosen_the_run_equals_one_in_float32(tmp_path, monkeypatch):
    """So measuring, here the real one, changes nothing."""
    monkeypatch.setattr(precision_choice, "MIN_STEPS", 1)
    monkeypatch.setattr(precision_choice, "REQUIRED_SPEEDUP", 1e9)
    monkeypatch.setattr(precision_choice, "has_bfloat16", lambda device: True)
    folder = train(tmp_path / "auto", small("auto"))
    assert "float32" in folder.read_precisions()["autoencoder"].reason
    assert outcome(folder) == outcome(train(tmp_path / "float32", small("float32")))


@pytest.mark.parametrize("stop_after", [3, 13])
def test_a_run_that_resumes_computes_as_it_began_and_measures_nothing(
    stop_after, tmp_path, timings
):
    timings(FAST)
    whole = outcome(train(tmp_path / "whole", small("auto")))
    with pytest.raises(Stopped):
        train(tmp_path / "parts", small("auto"), stop_after)
    begun = RunFolder(tmp_path / "parts").read_precisions()
    measured = timings(FAST)
    parts = outcome(train(tmp_path / "parts", small("auto")))
    assert len(measured) == 2 - len(begun) < 2
    last = {name for name in whole if "step-" not in name or "step-00000010" in name}
    assert {name for name in last if parts.get(name) != whole[name]} == set()


def test_the_choice_is_one_sentence_the_first_time_and_none_when_it_is_resumed(tmp_path, timings):
    timings(FAST)
    run = small("auto")
    texts = [e.text for e in train_run(session(tmp_path, run)) if e.text]
    assert len(texts) == 2
    assert texts[0] == (
        "autoencoder: training in bfloat16: a gradient takes 1000 ms in bfloat16 and 2000 ms in "
        "float32 on this CPU. The choice is kept in precision.json; --precision float32 avoids it "
        "in another run."
    )
    (tmp_path / "model" / "priors" / "0" / "config.json").unlink()
    assert [e.text for e in train_run(session(tmp_path, run)) if e.text] == []


def test_nothing_is_measured_for_a_given_precision_or_a_few_steps(tmp_path, timings, monkeypatch):
    measured = timings(FAST)
    assert train(tmp_path / "given", small("float32")).read_precisions() == {}
    monkeypatch.setattr(precision_choice, "MIN_STEPS", 11)
    folder = train(tmp_path / "few", small("auto"))
    assert {c.precision for c in folder.read_precisions().values()} == {"float32"}
    assert measured == []


def test_a_changed_config_drops_the_choices_of_stages_that_have_not_begun(tmp_path, timings):
    timings(FAST)
    run, folder = small("auto"), RunFolder(tmp_path)
    with pytest.raises(Stopped):
        train(tmp_path, run, stop_after=3)
    folder.add_precision("prior0", StagePrecision(precision="bfloat16"))
    forget_precisions(folder, run)
    assert list(folder.read_precisions()) == ["autoencoder", "prior0"]
    forget_precisions(folder, with_training(run, 0, batch=4))
    assert list(folder.read_precisions()) == ["autoencoder"]


def test_a_run_that_continues_on_a_machine_without_bfloat16_chooses_again(
    tmp_path, timings, monkeypatch
):
    timings(FAST)
    with pytest.raises(Stopped):
        train(tmp_path, small("auto"), stop_after=8)
    monkeypatch.setattr(precision_choice, "has_bfloat16", lambda device: False)
    folder = train(tmp_path, small("auto"))
    assert {c.precision for c in folder.read_precisions().values()} == {"float32"}


def choose_on(rank: int, port: int, folder: str) -> None:
    """Alone bfloat16 would pay for the second process only; together it does not."""
    join_group(rank, 2, port)
    precision_choice.MIN_STEPS = 1
    precision_choice.has_bfloat16 = lambda device: True
    precision_choice.measure = lambda task, device: FAST if rank else (1.0, 2.0)
    run = small("auto")
    shared = replace(
        session(Path(folder), run), accelerator=new_accelerator(run, RunFolder(Path(folder)))
    )
    for number in range(2):
        assert choose_precision(shared, "prior0", RegressionTask())[0] == "float32", number
    leave_group()


def test_all_processes_make_one_choice(tmp_path):
    multiprocessing.spawn(choose_on, (free_port(), str(tmp_path)), nprocs=2)
    choice = RunFolder(tmp_path).read_precisions()["prior0"]
    assert "1500 ms in bfloat16 and 1500 ms in float32" in choice.reason


def test_a_gpu_without_bfloat16_trains_in_float32_and_the_user_learns_of_float16(monkeypatch):
    gpu = torch.device("cuda")
    for native, expected in [(False, "float32"), (True, "bfloat16")]:
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native
        )
        choice = fixed_choice(gpu)
        assert choice.precision == expected
        assert ("--precision float16" in choice.reason) is (not native)


def test_float16_without_a_gpu_is_an_error_of_one_line(tmp_path):
    with pytest.raises(
        ValueError, match=r"float16 needs a GPU, .*; use bfloat16, float32 or auto"
    ):
        new_accelerator(small("float16"), RunFolder(tmp_path))


def test_both_precisions_are_timed():
    seconds = measure(RegressionTask(), torch.device("cpu"))
    assert all(0 < value < 1 for value in seconds)


def test_the_demo_whose_figures_are_published_is_in_float32():
    assert PRESETS["demo"]().precision == "float32"


def test_a_stage_with_checkpoints_and_no_choice_stays_in_float32(tmp_path, timings):
    """Such checkpoints are of a version for which "auto" on a CPU was float32."""
    measured = timings(FAST)
    run = session(tmp_path, small("auto"))
    checkpoints = run.folder.checkpoints("autoencoder")
    checkpoints.mkdir(parents=True)
    (checkpoints / "step-7.safetensors").write_bytes(b"")
    assert choose_precision(run, "autoencoder", RegressionTask())[0] == "float32"
    assert measured == []


class BlockTask(RegressionTask):
    """A network of one block."""

    def __init__(self) -> None:
        super().__init__(recompute=True)
        self.network = ResidualStack(4, 4, 1, kernel=1)
        self.phases = [Phase("network", self.network, self.loss, self.training)]

    def loss(self, module: nn.Module, part: Tensor, step: int) -> Loss[int]:
        return Loss(module(part[:, :, None, None]).square().mean(), {}, step)


def test_the_measured_step_recomputes_what_training_will_recompute(monkeypatch):
    task, recomputed = BlockTask(), []
    original = precision_choice.compute_gradients

    def compute_gradients(*arguments: object) -> None:
        recomputed.append(all(block.recomputes for block in outermost_blocks(task.network)))
        original(*arguments)

    monkeypatch.setattr(precision_choice, "compute_gradients", compute_gradients)
    monkeypatch.setattr(precision_choice, "MIN_SECONDS", 0)
    measure(task, torch.device("cpu"))
    assert recomputed
    assert all(recomputed)
    assert not any(block.recomputes for block in outermost_blocks(task.network))
