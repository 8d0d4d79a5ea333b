"""What the sections of one run are made from, each thing read once.

A method of `Page` makes the content of one section, as the template shows it; one whose stage is
not done raises `NotYet`.
"""

import platform
import shlex
from datetime import UTC, datetime
from functools import cached_property
from math import log
from typing import Any

import torch

import vqvae2
from vqvae2.configuration import to_dict
from vqvae2.data.codes import read_codes
from vqvae2.data.images import ImageDataset, open_validation
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import fingerprints
from vqvae2.imaging.colormaps import code_map, heat
from vqvae2.imaging.convert import to_float
from vqvae2.metrics.describe import METRICS
from vqvae2.metrics.results import AccuracyScore, Measurement, RunMetrics, SampleMetrics
from vqvae2.metrics.usage import CodeUsage
from vqvae2.pipeline import Pipeline
from vqvae2.report import plots
from vqvae2.report.formatting import (
    LOSSLESS_SIDE,
    Row,
    about_quality,
    distance_table,
    embedded_image,
    figure,
    percent,
    quality_sets,
    row,
    safe,
    say,
    stored,
)
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import DataSummary, RunFolder
from vqvae2.training.stage import is_saved
from vqvae2.weights import code_fingerprint

RECONSTRUCTED = 16  # validation images beside their reconstructions
PER_LEVEL = 8  # validation images shown level by level
CLASSES = 20  # rows of samples, at most
A_CLASS = 8  # samples a row
WITHOUT_CLASSES = 32  # samples of a run without classes
CODES_DRAWN = 20_000  # samples are fewer where they would need more codes than these
NAMES_SHOWN = 500  # of skipped images
BALANCE = ("precision", "recall", "accuracy_score")
SURPRISES = 64  # validation images whose likelihood is looked at


class NotYet(ValueError):
    """A section's stage is not done; the message says what to run."""


class Page:
    """What the sections of one run are made from, each read once.

    Arguments:
        folder: the run.
        device: where models are put.
    """

    def __init__(self, folder: RunFolder, device: str) -> None:
        self.folder, self.device = folder, device
        self.run: RunConfig = folder.read()
        self.num_levels = self.run.autoencoder.model.num_levels
        self.grids = self.run.grids()

    @cached_property
    def pipeline(self) -> Pipeline:
        """The models that are trained."""
        if not is_saved(self.folder.autoencoder):
            raise NotYet(f"The autoencoder is not trained yet: {self.command('train --run')}.")
        return Pipeline.open(self.folder.path).to(self.device)

    @cached_property
    def validation(self) -> ImageDataset:
        """The validation images."""
        return open_validation(self.run.data)

    @cached_property
    def usage(self) -> list[CodeUsage]:
        """How often each code of each level occurs among the validation codes."""
        self.require_codes()
        known = code_fingerprint(self.pipeline.autoencoder)
        if not any(self.folder.codes.glob("validation-*.parquet")):
            raise NotYet(f"The codes are not extracted yet: {self.command('train --run')}.")
        codes = read_codes(self.folder.codes, "validation", known)
        counted = []
        for maps, grid in zip(codes.levels, codes.info.grids, strict=True):
            counted.append(CodeUsage.of(grid.num_codes))
            counted[-1].add(torch.from_numpy(maps.astype("int64")))
        return counted

    @cached_property
    def summary(self) -> DataSummary:
        """The images of the run."""
        summary = self.folder.read_data()
        if summary is None:
            raise NotYet(f"No images were read yet: {self.command('train --run')}.")
        return summary

    @cached_property
    def metrics(self) -> RunMetrics:
        """The results in metrics.json."""
        metrics = self.folder.read_metrics()
        if not metrics:
            raise NotYet(f"Nothing was measured yet: {self.command('evaluate')}.")
        return metrics

    def command(self, words: str) -> str:
        """What to type."""
        return f"run `vqvae2 {words} {shlex.quote(str(self.folder.path))}`"

    def require_codes(self) -> None:
        """Raises NotYet for a prior on pixels, with its figure if there is one."""
        if self.run.on_pixels:
            bits = self.priors.get("validation_bits_per_dim")
            figures = "" if bits is None else f": {bits:.3f} bits per dimension held out"
            raise NotYet(f"A prior on the pixels themselves, without codes{figures}.")

    @property
    def priors(self) -> Measurement:
        """The metrics of the priors; empty before they are measured."""
        return self.metrics.priors or Measurement(0)

    def head(self) -> dict[str, Any]:
        """What stands at the top."""
        run = self.run
        grids = " + ".join(f"{grid.height}x{grid.width}" for grid in self.grids)
        num_codes = ", ".join(dict.fromkeys(str(grid.num_codes) for grid in self.grids))
        facts = {
            "preset": run.preset,
            "data": run.data.source,
            "images": f"{run.data.size}x{run.data.size}",
            "codes": "none" if run.on_pixels else f"{grids}, K = {num_codes}",
            "classes": str(run.num_classes) if run.num_classes > 1 else "none",
            "seed": str(run.seed),
            "date": datetime.now(UTC).date().isoformat(),
            "versions": f"vqvae2 {vqvae2.__version__}, torch {torch.__version__}, "
            f"Python {platform.python_version()}",
        }
        size = run.data.size
        return {
            "name": self.folder.path.resolve().name,
            "facts": facts,
            # Whole multiples, so that every pixel of a small image is a square.
            "side": size * max(1, round(96 / size)),
            "large_side": size * max(1, 128 // size),
            "jpeg": size > LOSSLESS_SIDE,
        }

    def key_figures(self) -> dict[str, Any]:
        """The few figures that sum a run up, and a card a level."""
        self.require_codes()
        measured = self.metrics.reconstruction
        if measured is None:
            raise NotYet(f"Reconstructions were not measured yet: {self.command('evaluate')}.")
        nats = self.priors.levels("validation_nats_per_code")
        size, channels = self.run.data.size, self.run.autoencoder.model.image_channels
        levels = [
            {
                "level": level,
                "grid": f"{grid.height}x{grid.width}",
                "num_codes": grid.num_codes,
                "used": int(measured.levels("codes_used")[level]),
                "share": measured.levels("share_used")[level],
                "perplexity": measured.levels("perplexity")[level],
                "nats": nats[level] if level < len(nats) else None,
                "uniform": log(grid.num_codes),
            }
            for level, grid in enumerate(self.grids)
        ]
        return {
            "mse": measured.get("mse"),
            "psnr": measured.get("psnr_db"),
            "ssim": measured.get("ssim"),
            "bits_per_dim": self.priors.get("validation_bits_per_dim"),
            "fixed_bits_per_dim": sum(grid.bits for grid in self.grids) / (channels * size**2),
            "num_images": measured.num_images,
            "levels": levels,
            "stale": self.stale(),
        }

    def stale(self) -> str:
        """A sentence if priors were trained since the figures were taken."""
        measured = len(self.priors.levels("validation_nats_per_code"))
        trained = sum(is_saved(self.folder.prior(level)) for level in range(self.num_levels))
        if trained <= measured:
            return ""
        return f"Priors were trained since these figures were taken: {self.command('evaluate')}."

    def reconstructions(self) -> list[dict[str, Any]]:
        """Validation images of all classes beside what comes back from their codes."""
        self.require_codes()
        pipeline, indices = self.pipeline, evenly_spaced(len(self.validation), RECONSTRUCTED)
        images = to_float(self.validation.batch(indices))
        pairs = zip(images, pipeline.reconstruct(images), indices.tolist(), strict=True)
        return [
            {
                "name": self.class_of(index),
                "original": embedded_image(image, f"original {number}"),
                "reconstruction": embedded_image(back, f"reconstruction {number}"),
            }
            for number, (image, back, index) in enumerate(pairs)
        ]

    def class_of(self, index: int) -> str:
        """The class name of a validation image, "" without classes."""
        names = self.validation.class_names
        return names[int(self.validation.labels[index])] if names else ""

    def levels(self) -> list[list[Row]]:
        """Images decoded from each level alone, then the code maps themselves."""
        self.require_codes()
        pipeline = self.pipeline
        images = to_float(self.validation.batch(evenly_spaced(len(self.validation), PER_LEVEL)))
        codes = pipeline.encode(images)
        numbers = range(self.num_levels)
        decoded = [
            row("image", images),
            row("all levels", pipeline.decode(codes)),
            *(row(f"level {n} alone", pipeline.decode(codes, [n]), n) for n in numbers),
        ]
        grids = [f"{grid.height}x{grid.width}" for grid in self.grids]
        maps = [
            row(f"codes of level {n}, {grids[n]}", code_map(codes[n], self.grids[n].num_codes), n)
            for n in numbers
        ]
        # With one level, that level alone is all levels.
        return [decoded if self.num_levels > 1 else decoded[:2], maps]

    def codebooks(self) -> list[dict[str, Any]]:
        """Frequencies of each level's codes."""
        return [
            {
                "level": level,
                "used": usage.used,
                "total": len(usage.counts),
                "perplexity": usage.perplexity,
                "occurrences": int(usage.counts.sum()),
                "plot": safe(plots.codebook_plot(usage, level)),
            }
            for level, usage in enumerate(self.usage)
        ]

    def training(self) -> dict[str, Any]:
        """Curves of every stage that was begun."""
        curves = []
        train, validation = self.log("autoencoder")
        skipped = 0 if self.run.on_pixels else self.run.autoencoder.continuous_steps
        if train or validation:
            plot = plots.distortion_plot(train, validation, self.num_levels, skipped)
            curves.append(self.curve("autoencoder", "Autoencoder: error", plot))
        if validation:
            plot = plots.usage_plot(validation, [grid.num_codes for grid in self.grids])
            curves.append({"title": "Autoencoder: codes in use", "plot": safe(plot), "note": ""})
        for level in range(len(self.run.levels)):
            train, validation = self.log(f"prior{level}")
            if train or validation:
                plot = plots.prior_plot(train, validation, level, self.grids[level].num_codes)
                curves.append(self.curve(f"prior{level}", f"Prior of level {level}", plot))
        if not curves:
            raise NotYet(f"Training has not begun: {self.command('train --run')}.")
        return {"curves": curves, "shaded": skipped > 0}

    def log(self, stage: str) -> tuple[list[plots.Look], list[plots.Look]]:
        """What a stage wrote of training and of validation images."""
        written = self.folder.log(stage)
        return written.read("train"), written.read("validation")

    def curve(self, stage: str, title: str, plot: str) -> dict[str, Any]:
        """A plot with the stage's speed."""
        timing = self.folder.log(stage).read_timing()
        rates = [line["examples_per_second"] for line in timing]
        note = f"{figure(rates[-1], digits=3)} examples/s" if rates else ""
        return {"title": title, "plot": safe(plot), "note": note}

    def samples(self) -> dict[str, Any]:
        """New images, a row a class; column i is drawn with seed i."""
        pipeline, names = self.pipeline, self.pipeline.config.class_names
        if len(pipeline.priors) != self.num_levels:
            raise NotYet(
                f"{len(pipeline.priors)} of {self.num_levels} priors are trained: "
                f"{self.command('train --run')}."
            )
        classes = evenly_spaced(len(names), CLASSES).tolist() or [0]
        positions = sum(prior.domain.num_values for prior in pipeline.priors)
        wanted = A_CLASS if names else WITHOUT_CLASSES
        seeds = list(range(max(1, min(wanted, CODES_DRAWN // (positions * len(classes))))))
        labels = [label for label in classes for _ in seeds]
        drawn = torch.split(pipeline.sample(labels, seeds * len(classes)).images, len(seeds))
        if names:
            rows = [row(names[n], images) for n, images in zip(classes, drawn, strict=True)]
        else:
            rows = [row("", images) for images in torch.split(drawn[0], A_CLASS)]
        return {
            "rows": rows,
            "named": bool(names),
            "seeds": len(seeds),
            "left_out": len(names) - len(classes) if names else 0,
            "sampling": [say(draw) for draw in pipeline.config.sampling],
        }

    def quality(self) -> dict[str, Any]:
        """Distances of samples to images by each network; who learns from samples; outsiders."""
        metrics = self.folder.read_metrics()
        score = metrics.accuracy_score
        if not (metrics.samples or score or metrics.out_of_distribution):
            raise NotYet(
                f"Samples were not measured yet: {self.command('evaluate --samples 10000')}."
            )
        samples = metrics.samples.items()
        return {
            "networks": [self.quality_by(name, measured) for name, measured in samples],
            "score": score and self.accuracy_score(score),
            "detection": metrics.out_of_distribution,
            "stale": self.stale_samples(metrics),
        }

    def accuracy_score(self, score: AccuracyScore) -> dict[str, Any]:
        """The table of the classification accuracy score."""
        classes = evenly_spaced(len(score.class_names), CLASSES).tolist()
        return {
            "depth": score.training.depth,
            "num_images": score.num_images,
            "classes": [score.class_names[n] for n in classes],
            "rows": {
                name: [
                    *(percent(tested["real"].by_class[n]) for n in classes),
                    *(percent(accuracy.top1) for accuracy in tested.values()),
                ]
                for name, tested in score.trained_on.items()
            },
        }

    def stale_samples(self, metrics: RunMetrics) -> str:
        """A sentence if any of it was measured on other weights."""
        now = tuple(fingerprints(self.pipeline))
        if all(origin.models == now for _, _, origin in metrics.sample_provenance()):
            return ""
        again = self.command("evaluate --samples 10000")
        return (
            "Models were trained since these figures were taken; --samples, --cas and --outside "
            f"take them anew: {again}."
        )

    def quality_by(self, name: str, metrics: SampleMetrics) -> dict[str, Any]:
        """The table, the curves and the nearest training images by one network."""
        swept, cooled = metrics.by_fraction, metrics.by_temperature
        fractions, curves = [float(fraction) for fraction in swept], []
        if len(swept) > 1:
            for key in ("fid", "inception_score"):
                title = METRICS[key].title(name)
                values = [one[key] for one in swept.values()]
                curves.append((title, plots.sweep_plot(fractions, {title: values}, title)))
            balance = {
                METRICS[key].name: [one[key] for one in swept.values()]
                for key in BALANCE
                if all(one.get(key) is not None for one in swept.values())
            }
            curves.append(("Quality and diversity", plots.sweep_plot(fractions, balance, "share")))
        if len(swept) + len(cooled) > 1:
            rejection = [(one["recall"], one["precision"]) for one in swept.values()]
            cooling = [(one["recall"], one["precision"]) for one in cooled.values()]
            plot = plots.tradeoff_plot(
                {"rejection": (list(swept), rejection), "temperature": (list(cooled), cooling)}
            )
            curves.append(("Rejection against temperature", plot))
        near = self.folder.neighbours(name)
        head, *rows = distance_table(name, quality_sets(metrics))
        return {
            "name": name,
            "num_images": metrics.validation.num_images,
            "head": head,
            "rows": rows,
            "about": about_quality(name, metrics),
            "curves": [{"title": title, "plot": safe(plot)} for title, plot in curves],
            "neighbours": stored(near, "samples and their nearest") if near.is_file() else None,
        }

    def surprise(self) -> dict[str, Any]:
        """Where the codes of validation images are improbable: their mean, and some images."""
        pipeline = self.pipeline
        if len(pipeline.priors) != self.num_levels:
            raise NotYet(f"Not all priors are trained: {self.command('train --run')}.")
        indices = evenly_spaced(len(self.validation), SURPRISES)
        parts = []
        for part in indices.split(PER_LEVEL):
            images = to_float(self.validation.batch(part))
            found = pipeline.log_prob(images, self.validation.labels[part])
            # A prior on pixels says each colour apart: a place is as surprising as all of them.
            parts.append([-(n.sum(-1) if n.ndim == 4 else n).double().cpu() for n in found])
        nats = [torch.cat(maps) for maps in zip(*parts, strict=True)]
        whole = torch.stack([maps.flatten(1).sum(1) for maps in nats]).sum(0)
        count = min(PER_LEVEL, len(indices))
        shown = whole.argsort()[torch.linspace(0, len(indices) - 1, count).long()]
        tops = [float(maps.max()) for maps in nats]
        rows = [row("image", to_float(self.validation.batch(indices[shown])))]
        for level, (maps, top) in enumerate(zip(nats, tops, strict=True)):
            rows.append(row(f"level {level}", heat(maps[shown] / top), level))
        means = [
            row(f"level {level}, mean", heat(maps.mean(0, keepdim=True) / top), level)
            for level, (maps, top) in enumerate(zip(nats, tops, strict=True))
        ]
        return {
            "rows": rows,
            "means": means,
            "bits": [f"{value:,.0f} bits" for value in (whole[shown] / log(2)).tolist()],
            "tops": [f"{top:.1f}" for top in tops],
            "count": len(indices),
        }

    def figures(self) -> dict[str, Any]:
        """All of metrics.json: provenance, then a table a group."""
        metrics = self.metrics
        provenance = to_dict(metrics.provenance) if metrics.provenance else {}
        versions = provenance.pop("versions", {})
        assert isinstance(versions, dict)
        # Samples have a section of their own.
        parts = {"reconstruction": metrics.reconstruction, "priors": metrics.priors}
        groups = [(group, lines_of(part)) for group, part in parts.items() if part]
        return {
            "provenance": {**provenance, **versions},
            "groups": groups,
            "stale": self.stale(),
        }

    def data(self) -> dict[str, Any]:
        """What data.json says, at most `NAMES_SHOWN` names of skipped images."""
        summary = self.summary
        return {
            "source": self.run.data.source,
            "train": summary.num_train,
            "validation": summary.num_validation,
            "class_names": list(summary.class_names),
            "skipped": list(summary.skipped[:NAMES_SHOWN]),
            "num_skipped": len(summary.skipped),
        }


def lines_of(measurement: Measurement) -> list[dict[str, Any]]:
    """The lines of a table of metrics: a value for all levels, or one per level."""
    names = [*measurement.values, *measurement.per_level]
    lines = [
        {
            "name": name,
            "meaning": METRICS[name].meaning,
            "levels": [figure(item) for item in measurement.levels(name)] or None,
            "value": figure(measurement.get(name)) if name in measurement.values else "",
        }
        for name in dict.fromkeys(names)
    ]
    count = {
        "name": "num_images",
        "meaning": "validation images measured",
        "levels": None,
        "value": figure(measurement.num_images),
    }
    return [count, *lines]
