"""The verdict of a report: how far and how good a run is, one plain sentence per question."""

from collections.abc import Iterator
from math import log

from vqvae2.messages import counted
from vqvae2.metrics.results import SampleMetrics
from vqvae2.report.doctor import MAX_UNUSED, Finding
from vqvae2.report.source import ReportSource
from vqvae2.training.autoencoder import AutoencoderStage
from vqvae2.training.stages import stages

RECONSTRUCTIONS = {
    30.0: "are close to the originals",
    25.0: "keep objects and most details",
    20.0: "keep objects and colours, and lose fine details",
    0.0: "keep rough shapes and colours alone",
}
"""What reconstructions of at least this PSNR in dB look like."""

MIN_PSNR = 20.0
MAX_RATE = 0.98  # nats per code of a prior that has learnt, as a share of those of chance


def verdict(source: ReportSource) -> list[Finding]:
    """How far the run is, and how good its reconstructions, codes, priors and samples are."""
    findings = [status(source)]
    for judge in (reconstructions, codes, priors, samples, health):
        findings += judge(source)
    return findings


def status(source: ReportSource) -> Finding:
    """Whether everything is trained."""
    parts = stages(source.config)
    done = sum(stage.done(source.folder) for stage in parts)
    if done == len(parts):
        return Finding("good", "Finished: everything is trained.")
    text = f"Unfinished: {done} of {len(parts)} stages are done."
    return Finding("open", text, f"To continue, {source.command('train --run')}.")


def reconstructions(source: ReportSource) -> Iterator[Finding]:
    """How much of an image its codes keep, by the last evaluation or else the last validation."""
    measured, psnr, num_images = source.measured.reconstruction, None, 0
    if measured is not None:
        psnr, num_images = measured.get("psnr_db"), measured.num_images
    elif not source.config.on_pixels:
        name = AutoencoderStage(source.config.autoencoder).name
        line = next(reversed(source.folder.log(name).read("validation")), {})
        psnr, num_images = line.get("psnr_db"), int(line.get("num_images", 0))
    if psnr is None:
        return
    words = next(text for least, text in RECONSTRUCTIONS.items() if psnr >= least)
    text = f"Reconstructions {words}: PSNR {psnr:.1f} dB on {source.validation_count(num_images)}."
    if psnr >= MIN_PSNR:
        yield Finding("good", text)
    else:
        yield Finding("warning", text, "Train the autoencoder longer, or use finer code grids.")


def codes(source: ReportSource) -> Iterator[Finding]:
    """Whether the codebooks are in use."""
    measured = source.measured.reconstruction
    shares = measured.levels("share_used") if measured else ()
    if not shares:
        return
    listed = by_level([100 * share for share in shares])
    if min(shares) < 1 - MAX_UNUSED:
        text = f"Many codes are unused; in use are {listed}."
        yield Finding("warning", text, "Health says what to change.")
    else:
        yield Finding("good", f"Nearly all codes are in use: {listed}.")


def priors(source: ReportSource) -> Iterator[Finding]:
    """Whether the priors predict codes better than chance."""
    nats = source.priors.levels("validation_nats_per_code")
    if not nats or source.config.on_pixels:
        return
    rates = [one / log(grid.num_codes) for one, grid in zip(nats, source.grids, strict=False)]
    text = (
        f"codes take {by_level([100 * rate for rate in rates])} of the bits that they would take "
        "if all were equally likely"
    )
    if max(rates) > MAX_RATE:
        advice = "A prior near 100 % has hardly learnt: train it longer, or on more images."
        yield Finding("warning", f"The priors can hardly predict codes: {text}.", advice)
    else:
        yield Finding("good", f"The priors can predict codes: {text}.")


def samples(source: ReportSource) -> Iterator[Finding]:
    """What was measured of samples, or how to measure them."""
    metrics = source.measured
    for extractor, one in metrics.samples.items():
        yield Finding("good", distance_sentence(extractor, one))
    if (agreement := metrics.class_agreement) is not None:
        yield Finding(
            "good",
            f"A classifier recognises the requested class in {100 * agreement.on_samples:.1f} % "
            f"of {agreement.num_samples:,} samples, and the class of "
            f"{100 * agreement.on_images:.1f} % of validation images.",
        )
    if not metrics.samples and metrics.class_agreement is None and source.has_priors:
        yield Finding("open", "Samples were not measured yet.", source.advice_to_measure())


def by_level(percentages: list[float]) -> str:
    """Such as `98 % (level 0) and 100 % (level 1)`."""
    return " and ".join(f"{one:.0f} % (level {level})" for level, one in enumerate(percentages))


def distance_sentence(extractor: str, metrics: SampleMetrics) -> str:
    """The distance of samples to training images, beside what is attainable."""
    samples = next(iter(metrics.by_fraction.values()))
    text = (
        f"FID-{extractor} of {counted(metrics.num_samples, 'sample')} is {samples['fid']:.1f}, "
        f"of reconstructions {metrics.reconstructions['fid']:.1f}, of validation images "
        f"{metrics.validation['fid']:.1f}; lower is better"
    )
    accuracy = samples.get("class_accuracy")
    known = metrics.validation.get("class_accuracy")
    if accuracy is None or known is None:
        return f"{text}."
    return (
        f"{text}. It recognises the requested class in {100 * accuracy:.0f} % of the samples, and "
        f"the class of {100 * known:.0f} % of validation images."
    )


def health(source: ReportSource) -> Iterator[Finding]:
    """How many of the doctor's checks failed, where the run is finished."""
    for kind in ("problem", "warning"):
        findings = [one for one in source.findings if one.verdict == kind]
        if findings and source.has_priors:
            text = f"Health lists {counted(len(findings), kind)}: {findings[0].text}."
            yield Finding(findings[0].verdict, text)
            return
