"""The decoder stage: what it changes, what it leaves, and when the discriminator joins."""

import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from builders import make_folder, scripted
from small_runs import SHARP, TRAIN, sharp_run, small_run, train

from vqvae2.autoencoder.discriminator import Discriminator
from vqvae2.autoencoder.sharp_decoder import SharpDecoder
from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.samples import SampleEvaluationConfig, evaluate_samples
from vqvae2.evaluation.validation import evaluate
from vqvae2.imaging.convert import to_float
from vqvae2.metrics.classifier import ResNet, as_extractor
from vqvae2.metrics.extractors import Extractor
from vqvae2.pipeline import Pipeline
from vqvae2.runs.decoder import DecoderStageConfig, PerceptualConfig
from vqvae2.saving import load_module
from vqvae2.training.decoder import DecoderModels, DecoderTask
from vqvae2.training.loop import new_state
from vqvae2.training.loop import train as train_loop
from vqvae2.training.session import Stopped
from vqvae2.training.speed import measure_speed
from vqvae2.training.stages import stages
from vqvae2.weights import code_fingerprint, fingerprint, save_autoencoder


def task_of(config: DecoderStageConfig) -> DecoderTask:
    run = small_run()
    torch.manual_seed(0)
    autoencoder = VQVAE(run.autoencoder.model)
    decoder = SharpDecoder(config.model, autoencoder.config)
    models = DecoderModels(autoencoder, decoder, Discriminator(config.discriminator))
    return DecoderTask(models, open_images(run.data).train, config, seed=0)


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], module: torch.nn.Module) -> bool:
    return any(not torch.equal(before[name], v) for name, v in module.state_dict().items())


def test_the_discriminator_learns_alone_before_the_adversarial_loss_counts():
    task = task_of(replace(SHARP, adversarial_start=0.6, discriminator_warmup=0.3))
    models = task.models
    assert (task.config.discriminator_step, task.config.adversarial_step) == (3, 6)
    logged = []
    before = snapshot(models.discriminator)
    for progress in train_loop(task, new_state(task), Accelerator(cpu=True)):
        logged.append("adversarial" in progress.metrics)
        if progress.step == 3:
            assert not changed(before, models.discriminator)
        if progress.step == 4:
            assert changed(before, models.discriminator)
    assert logged == [False] * 6 + [True] * 4


def test_the_share_of_the_peak_is_unknown_while_the_cost_of_a_step_changes():
    assert measure_speed(task_of(SHARP), 0, Accelerator(cpu=True)).fraction(100) == 0


def test_the_stage_changes_the_decoder_alone():
    task = task_of(SHARP)
    models = task.models
    before, decoder = snapshot(models.autoencoder), snapshot(models.decoder)
    digest = code_fingerprint(models.autoencoder)
    for _ in train_loop(task, new_state(task), Accelerator(cpu=True)):
        pass
    assert not changed(before, models.autoencoder)
    assert code_fingerprint(models.autoencoder) == digest
    assert changed(decoder, models.decoder)


def test_order_and_noise_are_functions_of_seed_and_step():
    first, again = task_of(SHARP), task_of(SHARP)
    first.batch(2)
    for a, b in zip(first.batch(7)[0], again.batch(7)[0], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.batch(7)[0][1], first.batch(8)[0][1])


def test_a_run_has_both_decoders_for_the_same_codes(tmp_path):
    folder = train(tmp_path, sharp_run())
    assert [stage.name for stage in stages(sharp_run())] == [
        "autoencoder", "codes", "decoder", "prior0", "prior1",
    ]  # fmt: skip
    pipeline = Pipeline.open(folder.path)
    images = to_float(open_images(sharp_run().data).validation.batch(torch.arange(3)))
    codes = pipeline.encode(images)
    plain, sharp = (pipeline.decode(codes, decoder=name) for name in ("plain", "sharp"))
    assert not torch.equal(plain, sharp)
    assert torch.equal(pipeline.decode(codes), sharp), "the sharp one, where there is one"
    seeds = [0, 1]
    default, other = pipeline.sample([0, 1], seeds), replace(pipeline, decoder="plain")
    drawn = other.sample([0, 1], seeds)
    for a, b in zip(default.codes, drawn.codes, strict=True):
        assert torch.equal(a, b), "codes do not depend on the decoder"
    assert torch.equal(drawn.images, pipeline.decode(drawn.codes, decoder="plain"))
    pipeline.save_pretrained(tmp_path / "saved")
    again = Pipeline.open(tmp_path / "saved")
    assert torch.equal(again.decode(codes), sharp)
    again.sharp_decoder = None
    again.save_pretrained(tmp_path / "saved")
    assert Pipeline.open(tmp_path / "saved").sharp_decoder is None


def test_priors_and_codes_do_not_depend_on_the_decoder_stage(tmp_path):
    folder = train(tmp_path / "plain", small_run())
    models = {path: path.read_bytes() for path in folder.model.glob("priors/*/model.safetensors")}
    train(tmp_path / "plain", sharp_run())
    assert folder.decoder.is_dir()
    assert all(path.read_bytes() == data for path, data in models.items())


def test_a_decoder_of_another_autoencoder_is_refused(tmp_path):
    folder = train(tmp_path, replace(sharp_run(), levels=()))
    pipeline = Pipeline.open(tmp_path)
    pipeline.autoencoder.codebooks[0].vectors += 1
    save_autoencoder(folder.autoencoder, pipeline.autoencoder)
    with pytest.raises(ValueError, match=r"The decoder in .* was trained on the codes of"):
        Pipeline.open(tmp_path)


def test_results_say_which_decoder_was_measured(tmp_path):
    folder = train(tmp_path, sharp_run())
    metrics = evaluate(Evaluation.open(folder))
    assert metrics.provenance.decoder == "sharp"
    names = {"spectral_distance_db", "gradient_distance", "mse"}
    assert names <= metrics.reconstruction.flat().keys()
    assert names <= metrics.sharp_reconstruction.flat().keys()
    assert metrics.reconstruction["mse"] != metrics.sharp_reconstruction["mse"]
    extractor = as_extractor(ResNet(12, 8, 16).eval(), "network")
    config = SampleEvaluationConfig(num_images=12)
    for decoder in ("sharp", "plain"):
        evaluate_samples(Evaluation.open(folder, decoder=decoder), extractor, config)
    assert list(folder.read_metrics().samples) == ["network", "network, plain decoder"]


def test_the_network_of_the_loss_does_not_judge(tmp_path):
    folder = train(tmp_path, sharp_run())
    sharp, plain = (Evaluation.open(folder, decoder=name) for name in ("sharp", "plain"))
    digest = sharp.pipeline.sharp_decoder.perceptual_network
    extractor = Extractor("teacher", digest, lambda images: None)
    with pytest.raises(ValueError, match="was the perceptual network of this run's decoder"):
        sharp.require_independent(extractor)
    plain.require_independent(extractor)
    sharp.require_independent(replace(extractor, digest="another"))
    model = load_module(folder.classifier, partial(ResNet, 12, 8, 16), SHARP.perceptual)
    assert digest == fingerprint(model) == as_extractor(model, "teacher").digest


def test_a_model_without_a_sharp_decoder_says_so():
    run = small_run()
    pipeline = Pipeline(VQVAE(run.autoencoder.model), None)
    with pytest.raises(ValueError, match="has no sharp decoder: train one"):
        pipeline.require_decoder("sharp")
    with pytest.raises(ValueError, match="plain or sharp, got 'blurred'"):
        pipeline.require_decoder("blurred")
    assert pipeline.require_decoder("") == "plain"


def test_images_without_labels_need_another_perceptual_network(tmp_path):
    data = make_folder(tmp_path / "data", count=40, classes=0)
    run = replace(
        sharp_run(), data=DataConfig(source=str(data), size=16), num_classes=1, levels=()
    )
    with pytest.raises(ValueError, match="classifier needs images of at least 2 classes, got 1"):
        train(tmp_path / "run", run)
    folder = train(tmp_path / "run", replace(run, decoder=replace(SHARP, perceptual_weight=0.0)))
    assert folder.decoder.is_dir()


def test_a_classifier_is_trained_once_and_again_after_a_stop_within(tmp_path):
    run = replace(sharp_run(), levels=())
    steps = TRAIN.steps + 4  # after one call for each split of the codes, in the classifier
    with pytest.raises(Stopped):
        train(tmp_path / "run", run, stop_after=steps)
    folder = train(tmp_path / "run", run)
    path = folder.classifier / "model.safetensors"
    weights = path.read_bytes()
    shutil.rmtree(folder.decoder)
    train(tmp_path / "run", run)
    assert path.read_bytes() == weights


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.pt", "must be classifier, efficientnet-lite0 or the path of a TorchScript"),
        ("text.pt", "is not a TorchScript network"),
        ("nan.pt", "gives NaN or infinite values for images of the run"),
        ("integers.pt", "gives no gradient for images of the run"),
    ],
)
def test_a_perceptual_network_that_cannot_be_used_is_one_clear_line(name, message, tmp_path):
    (tmp_path / "text.pt").write_text("no network")
    scripted(Pooled(float("nan"))).save(str(tmp_path / "nan.pt"))
    scripted(Rounded()).save(str(tmp_path / "integers.pt"))
    perceptual = PerceptualConfig(network=str(tmp_path / name))
    run = replace(sharp_run(), levels=(), decoder=replace(SHARP, perceptual=perceptual))
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", run)


def test_a_network_in_a_file_can_be_the_perceptual_network(tmp_path):
    scripted(Pooled(1.0)).save(str(tmp_path / "network.pt"))
    perceptual = PerceptualConfig(network=str(tmp_path / "network.pt"))
    run = replace(sharp_run(), levels=(), decoder=replace(SHARP, perceptual=perceptual))
    folder = train(tmp_path / "run", run)
    assert "perceptual" in folder.log("decoder").path.read_text()


class Pooled(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return self.factor * images.float().mean(dim=[2, 3])


class Rounded(torch.nn.Module):
    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return images.to(torch.uint8).float().mean(dim=[2, 3])
