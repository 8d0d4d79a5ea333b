"""Every metric once: its name, unit, direction, format and meaning.

The command line, the report and comparisons print metrics by this table. A new metric needs one
entry here, under the key that its values have in a `Measurement`.
"""

from dataclasses import dataclass
from typing import Literal

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class MetricDescription:
    """How a metric is named and printed.

    Arguments:
        name: as in papers.
        unit: "" where there is none.
        better: direction of improvement; "" where there is none.
        format: of `str.format`, applied to the value times `scale`.
        meaning: in a few words.
        scale: factor from the stored to the printed value.
        by_extractor: whether the name of the feature extractor is part of the title.
        in_tables: whether tables of sets of images have a column for it.
    """

    name: str
    unit: str
    better: Literal["lower", "higher", ""]
    format: str
    meaning: str
    scale: float = 1.0
    by_extractor: bool = False
    in_tables: bool = True

    def title(self, extractor: str = "") -> str:
        """The head of a column: the name with its extractor, scale and unit."""
        name = f"{self.name}-{extractor}" if self.by_extractor and extractor else self.name
        if self.unit == "%" or self.unit in name.split():
            return name  # the sign is beside each value, or the unit in the name
        return f"{name}, {self.unit}" if self.unit else name


def percent(name: str, meaning: str, better: Literal["lower", "higher", ""]) -> MetricDescription:
    """A share in [0, 1] that is printed in percent."""
    return MetricDescription(name, "%", better, "{:.1f} %", meaning, scale=100)


METRICS = {
    # Reconstruction
    "mse": MetricDescription(
        "MSE", "", "lower", "{:.5f}", "mean squared error, images in [0, 1]"
    ),
    "mse_over_variance": MetricDescription(
        "MSE / variance", "", "lower", "{:.4f}", "MSE / variance of the pixels"
    ),
    "psnr_db": MetricDescription(
        "PSNR", "dB", "higher", "{:.2f}", "peak signal-to-noise ratio"
    ),
    "ssim": MetricDescription(
        "SSIM", "", "higher", "{:.3f}", "structural similarity, 1 is identical"
    ),
    "ms_ssim": MetricDescription(
        "MS-SSIM", "", "higher", "{:.3f}",
        "SSIM over five scales, for images of 176 pixels and more",
    ),
    "mse_level_alone": MetricDescription(
        "MSE alone", "", "lower", "{:.5f}", "MSE when one level alone is decoded"
    ),
    "mse_level_blanked": MetricDescription(
        "MSE without", "", "", "{:.5f}", "MSE when all other levels are decoded"
    ),
    "codes_used": MetricDescription(
        "codes used", "", "higher", "{:.0f}", "number of codes that occur"
    ),
    "share_used": MetricDescription(
        "share used", "%", "higher", "{:.0f} %", "share of the codebook that occurs", scale=100
    ),
    "perplexity": MetricDescription(
        "perplexity", "", "higher", "{:.0f}", "number of equally likely codes of the same entropy"
    ),
    # Priors
    "validation_nats_per_code": MetricDescription(
        "nats per code", "", "lower", "{:.3f}", "of validation images"
    ),
    "train_nats_per_code": MetricDescription(
        "training nats per code", "", "lower", "{:.3f}", "of training images"
    ),
    "gap_nats_per_code": MetricDescription(
        "gap", "nats per code", "lower", "{:+.3f}", "validation minus training: memorisation"
    ),
    "parameters": MetricDescription(
        "parameters", "", "", "{:,.0f}", "number of weights of each prior"
    ),
    "validation_bits_per_dim": MetricDescription(
        "bits per dimension", "", "lower", "{:.3f}",
        "bits per image value: rate of the codes; likelihood of a prior on pixels",
    ),
    # Sets of images against training images
    "fid": MetricDescription(
        "FID", "", "lower", "{:.2f}",
        "Fréchet distance of the features to those of training images", by_extractor=True,
    ),
    "kid": MetricDescription(
        "KID", "x 1000", "lower", "{:.2f}",
        "kernel distance of the features to those of training images", 1000, by_extractor=True,
    ),
    "kid_deviation": MetricDescription(
        "±", "", "", "{:.2f}", "standard deviation of KID x 1000 over subsets", scale=1000
    ),
    "inception_score": MetricDescription(
        "IS", "", "higher", "{:.2f}",
        "exp of the information between image and predicted class", by_extractor=True,
    ),
    "inception_score_deviation": MetricDescription(
        "± of IS", "", "", "{:.2f}", "standard deviation over parts", in_tables=False
    ),
    "precision": MetricDescription(
        "precision", "", "higher", "{:.3f}", "share of the set near training images"
    ),
    "recall": MetricDescription(
        "recall", "", "higher", "{:.3f}", "share of training images near the set"
    ),
    "fid_against_reconstructions": MetricDescription(
        "FID*", "", "lower", "{:.2f}",
        "Fréchet distance to reconstructions instead of images", by_extractor=True,
    ),
    "fid_against_originals": MetricDescription(
        "FID to originals", "", "lower", "{:.2f}",
        "Fréchet distance of reconstructions to their originals", by_extractor=True,
        in_tables=False,
    ),
    "class_accuracy": percent(
        "class accuracy", "share of images whose class the extractor predicts", "higher"
    ),
    "accuracy_score": percent(
        "CAS", "accuracy on real images of a classifier trained on the set", "higher"
    ),
    # Classifiers and detection
    "accuracy": percent("accuracy", "share of images classified correctly", "higher"),
    "auroc": MetricDescription(
        "AUROC", "", "higher", "{:.3f}", "area under the ROC curve, 0.5 is chance"
    ),
}  # fmt: skip


def format_metric(name: str, value: float | None) -> str:
    """The value of a metric as it is printed; a dash for None."""
    if value is None:
        return DASH
    metric = METRICS[name]
    return metric.format.format(metric.scale * value)
