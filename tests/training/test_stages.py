"""Which stages a run has, and what may change between two calls."""

from dataclasses import replace

import pytest
from builders import make_folder
from small_runs import session, small_run, train, with_training

from vqvae2.data.config import DataConfig
from vqvae2.pipeline import Pipeline
from vqvae2.priors import PixelCNNPPConfig
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.presets import PRESETS
from vqvae2.training.session import Stopped
from vqvae2.training.stages import may_change, stages, train_run


def test_a_prior_refuses_another_autoencoder(tmp_path):
    folder = train(tmp_path, small_run())
    pipeline = Pipeline.open(tmp_path)
    pipeline.autoencoder.codebooks[0].vectors += 1
    from vqvae2.weights import save_autoencoder

    save_autoencoder(folder.model / "autoencoder", pipeline.autoencoder)
    with pytest.raises(ValueError, match="was trained on the codes of"):
        Pipeline.open(tmp_path)


def test_a_changed_config_is_refused_with_the_difference(tmp_path):
    run = small_run()
    with pytest.raises(Stopped):
        train(tmp_path, run, stop_after=3)
    with pytest.raises(ValueError, match="seed: 0 before, 7 now"):
        train(tmp_path, replace(run, seed=7))
    # What nothing depends on yet may change.
    train(tmp_path, with_training(run, 0, batch=4))
    with pytest.raises(ValueError, match=r"levels.0.training.batch: 4 before, 8 now"):
        train(tmp_path, run)


def test_images_other_than_those_of_the_first_call_are_refused(tmp_path):

    data = make_folder(tmp_path / "data", count=40)
    run = replace(small_run(), data=DataConfig(source=str(data), size=16), num_classes=2)
    with pytest.raises(Stopped):
        train(tmp_path / "run", run, stop_after=3)
    (data / "class0").rename(data / "class2")
    with pytest.raises(ValueError, match="The images are not those"):
        train(tmp_path / "run", run)
    (data / "class2").rename(data / "class0")
    data.rename(tmp_path / "moved")
    moved = replace(run, data=replace(run.data, source=str(tmp_path / "moved")))
    train(tmp_path / "run", moved)


def test_what_would_fail_in_a_later_stage_is_an_error_before_the_first(tmp_path):
    run, five_scales = small_run(), PixelCNNPPConfig(num_scales=5)
    later = [
        with_training(run, 1, batch=65),
        with_training(run, 1, log_every=0),
        replace(run, levels=(run.levels[0], replace(run.levels[1], prior=five_scales))),
    ]
    for wrong, message in zip(later, ["batch of 65", "log_every", "sides that are"], strict=True):
        with pytest.raises(ValueError, match=message):
            train(tmp_path / "run", wrong)
    train(tmp_path / "run", run)


def test_fewer_images_than_a_batch_is_an_error_that_names_a_batch_size(tmp_path):
    run = small_run()
    with pytest.raises(ValueError, match="at least one batch of 80 images, got 64"):
        train(tmp_path, with_training(run, None, batch=80))


def test_two_trainings_of_one_folder_are_one_clear_line(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.lock(), pytest.raises(ValueError, match="is being trained by another process"):
        train(tmp_path, small_run())
    with folder.lock():
        pass


def names(run: RunConfig) -> list[str]:
    return [stage.name for stage in stages(run)]


def test_a_run_lists_its_stages_in_order():
    assert names(small_run()) == ["autoencoder", "codes", "prior0", "prior1"]
    assert names(small_run((4,))) == ["autoencoder", "codes", "prior0"]
    assert names(replace(small_run(), levels=())) == ["autoencoder", "codes"]
    assert names(PRESETS["gated-cifar10"]()) == ["prior0"]


def test_steps_of_trackers_never_repeat():
    *_, bottom = stages(small_run())
    assert bottom.steps_before == 20


def test_every_stage_is_done_once_its_model_is_written(tmp_path):
    run = small_run()
    folder = RunFolder(tmp_path)
    done = []
    for stage in stages(run):
        assert not stage.done(folder)
        for _ in train_run(session(tmp_path, run), lambda s, name=stage.name: s.name == name):
            pass
        done.append(stage.name)
        assert [s.name for s in stages(run) if s.done(folder)] == done


@pytest.mark.parametrize(
    ("field", "allowed"),
    [
        ("seed", False),
        ("data.size", False),
        ("data.source", True),
        ("autoencoder.model.channels", False),
        ("autoencoder.training.recompute", True),
        ("levels.0.sampling.temperature", True),
        ("levels.0.prior.channels", False),
        ("levels", False),
        ("levels.1.prior.channels", True),
    ],
)
def test_what_a_stage_depends_on_may_not_change_once_it_has_begun(field, allowed):
    autoencoder, _, top, _ = stages(small_run())
    fixed = [*autoencoder.depends_on, *top.depends_on]
    assert may_change(field, fixed) == allowed
