"""A run from images to priors: each stage once, each resumable anywhere.

    autoencoder -> model/autoencoder -> codes/ -> (decoder -> model/decoder)
    -> prior0 -> model/priors/0 -> prior1 -> ...

Whether a stage is done is read from the files that are there, so repeating the call continues
where it stopped. Everything is reported to the caller as events; nothing is printed.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

from vqvae2.autoencoder.pixels import Pixels, PixelsConfig
from vqvae2.configuration import differences, to_dict
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import DataSummary, RunFolder
from vqvae2.training.autoencoder import AutoencoderStage
from vqvae2.training.decoder import DecoderStage
from vqvae2.training.extraction import ExtractionStage
from vqvae2.training.fit import require_same_progress
from vqvae2.training.pacing import Clock, paced, write_budget
from vqvae2.training.perceptual_networks import require_perceptual
from vqvae2.training.prior import PriorStage
from vqvae2.training.session import Event, TrainingSession, report_skipped, require_batch
from vqvae2.training.stage import Stage, has_begun
from vqvae2.weights import save_autoencoder

FREE_FIELDS = ("data.source", "data.memory_gib")
FREE_ENDINGS = (".max_skipped_steps", ".recompute", ".shard_optimizer")
"""Fields, and endings of fields, that do not affect the trained weights."""


def stages(config: RunConfig) -> list[Stage]:
    """The stages of a run, in order; a new kind of stage is one line here."""
    result: list[Stage] = []
    if not config.on_pixels:
        result.append(AutoencoderStage(config.autoencoder))
        result.append(ExtractionStage())
    if config.decoder is not None:
        result.append(DecoderStage(config.decoder, total_steps(result)))
    for level, level_config in enumerate(config.levels):
        result.append(PriorStage(level, level_config, total_steps(result)))
    return result


def total_steps(earlier: list[Stage]) -> int:
    """Optimizer steps of some stages together."""
    return sum(stage.training.steps for stage in earlier if stage.training is not None)


def train_run(
    session: TrainingSession, select: Callable[[Stage], bool] = lambda stage: True
) -> Iterator[Event]:
    """Runs all selected stages that are not done.

    Raises:
        Stopped: `session.should_stop` was true; everything is saved.
        ValueError: the run cannot be trained, or not be continued with this config or data.
    """
    with session.folder.lock() if session.world.is_main else nullcontext():
        prepare(session)
        skipped, clock = set(session.skipped), Clock.of(session)
        for name in [stage.name for stage in stages(session.config) if select(stage)]:
            session = yield from paced(session, name, clock)
            (stage,) = [stage for stage in stages(session.config) if stage.name == name]
            for event in stage.run(session):
                clock.count()
                yield event
            yield from report_skipped(session, name, skipped)


def prepare(session: TrainingSession) -> None:
    """Finds what would fail later, then writes the small files that need no training."""
    folder, config, world = session.folder, session.config, session.world
    config.check()
    for stage in stages(config):
        if (training := stage.training) is not None:
            require_batch(len(session.splits.train), training, world)
    if config.decoder is not None:
        require_perceptual(session, config.decoder)
    if world.is_main:
        folder.remove_partial_files()
        forget_precisions(folder, config)
        summary = continued_summary(folder, config, summarize(session))
        write_budget(session)
        folder.write_config(config)
        folder.write_data(summary)
        folder.write_pipeline(config, summary.class_names)
        if isinstance(config.autoencoder.model, PixelsConfig):
            # Pixels are not trained: they are saved before the processes share the work.
            save_autoencoder(folder.autoencoder, Pixels(config.autoencoder.model))
    world.barrier()
    require_same_progress([int(stage.done(folder)) for stage in stages(config)], world)


def forget_precisions(folder: RunFolder, config: RunConfig) -> None:
    """Drops choices for stages that have not begun, where the config has changed since."""
    if folder.exists() and (chosen := folder.read_precisions()) and folder.read() != config:
        begun = [stage.name for stage in stages(config) if has_begun(stage, folder)]
        folder.write_precisions({name: chosen[name] for name in begun if name in chosen})


def summarize(session: TrainingSession) -> DataSummary:
    """The images of the run, as data.json describes them."""
    splits = session.splits
    return DataSummary(
        class_names=tuple(splits.class_names),
        num_train=len(splits.train),
        num_validation=len(splits.validation),
        train_fingerprint=splits.train.fingerprint(),
        validation_fingerprint=splits.validation.fingerprint(),
        skipped=tuple(session.skipped),
    )


def continued_summary(folder: RunFolder, config: RunConfig, summary: DataSummary) -> DataSummary:
    """The summary of a run's images, with those that earlier calls skipped.

    Raises:
        ValueError: stages have begun that depend on another config or other images.
    """
    if not folder.exists():
        return summary
    before = folder.read()
    fixed = [field for s in stages(before) if has_begun(s, folder) for field in s.depends_on]
    if not fixed:
        return summary
    changes = differences(to_dict(before), to_dict(config))
    refused = [line for line in changes if not may_change(line.split(":")[0], fixed)]
    if refused:
        raise ValueError(
            f"{folder.path} was begun with another config ({'; '.join(refused[:4])}); use another "
            "--run, or the same options to resume."
        )
    return folder.require_same_images(summary)


def may_change(name: str, fixed: list[str]) -> bool:
    """Whether a field of the config can change where the fields `fixed` cannot."""
    if name in FREE_FIELDS or name.endswith(FREE_ENDINGS):
        return True
    related = (f == name or f.startswith(f"{name}.") or name.startswith(f"{f}.") for f in fixed)
    return not any(related)
