"""Every metric once: its name, format, meaning, direction and unit.

The command line, the report and comparisons print metrics by this table. A new metric needs one
entry here, under the key that its values have in a `Measurement`.
"""

from dataclasses import dataclass
from typing import Literal

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Metric:
    """How a metric is named and printed.

    Arguments:
        name: as in papers; "{}" is the name of the feature extractor.
        format: of the value times `scale`.
        meaning: in a few words.
        better: "lower" or "higher"; "" where neither is better.
        unit: "" where there is none.
        scale: factor from the stored to the printed value.
        in_tables: whether tables of sets of images have a column for it.
    """

    name: str
    format: str
    meaning: str
    better: Literal["lower", "higher", ""]
    unit: str = ""
    scale: float = 1.0
    in_tables: bool = True

    @property
    def explanation(self) -> str:
        """What it measures, and which values are better."""
        return f"{self.meaning}; {self.better} is better" if self.better else self.meaning

    def title(self, extractor: str = "") -> str:
        """The head of a column: the name with its extractor, scale and unit."""
        name = self.name.replace("-{}", f"-{extractor}" if extractor else "")
        if self.unit == "%" or self.unit in name.split():
            return name  # the sign is beside each value, or the unit in the name
        return f"{name}, {self.unit}" if self.unit else name


METRICS = {
    # Reconstruction
    "mse": Metric("MSE", ".5f", "mean squared error, images in [0, 1]", "lower"),
    "mse_over_variance": Metric("MSE / variance", ".4f", "MSE / variance of the pixels", "lower"),
    "psnr_db": Metric("PSNR", ".2f", "peak signal-to-noise ratio", "higher", "dB"),
    "ssim": Metric("SSIM", ".3f", "structural similarity, 1 is identical", "higher"),
    "ms_ssim": Metric(
        "MS-SSIM", ".3f", "SSIM over five scales, for images of 176 pixels and more", "higher"
    ),
    "mse_level_alone": Metric("MSE alone", ".5f", "MSE when one level alone is decoded", ""),
    "mse_level_blanked": Metric("MSE without", ".5f", "MSE when all other levels are decoded", ""),
    "codes_used": Metric("codes used", ".0f", "number of codes that occur", "higher"),
    "share_used": Metric(
        "share used", ".0f", "share of the codebook that occurs", "higher", "%", 100
    ),
    "perplexity": Metric(
        "perplexity", ".0f", "number of equally likely codes of the same entropy", "higher"
    ),
    # Priors
    "validation_nats_per_code": Metric("nats per code", ".3f", "of validation images", "lower"),
    "train_nats_per_code": Metric("training nats per code", ".3f", "of training images", "lower"),
    "gap_nats_per_code": Metric(
        "gap", "+.3f", "validation minus training: memorisation", "lower", "nats per code"
    ),
    "parameters": Metric("parameters", ",.0f", "number of weights of each prior", ""),
    "validation_bits_per_dim": Metric(
        "bits per dimension", ".3f",
        "bits per image value: rate of the codes; likelihood of a prior on pixels", "lower",
    ),
    # Sets of images against training images
    "fid": Metric(
        "FID-{}", ".2f", "Fréchet distance of the features to those of training images", "lower"
    ),
    "kid": Metric(
        "KID-{}", ".2f", "kernel distance of the features to those of training images", "lower",
        "x 1000", 1000,
    ),
    "kid_deviation": Metric(
        "±", ".2f", "standard deviation of KID x 1000 over subsets", "", scale=1000
    ),
    "inception_score": Metric(
        "IS-{}", ".2f", "exp of the information between image and predicted class", "higher"
    ),
    "inception_score_deviation": Metric(
        "± of IS", ".2f", "standard deviation over parts", "", in_tables=False
    ),
    "precision": Metric("precision", ".3f", "share of the set near training images", "higher"),
    "recall": Metric("recall", ".3f", "share of training images near the set", "higher"),
    "density": Metric(
        "density", ".3f", "number of balls around training images that a member of the set lies "
        "in, in units of what training images have", "higher", in_tables=False,
    ),
    "coverage": Metric(
        "coverage", ".3f", "share of training images whose ball holds a member of the set",
        "higher",
    ),
    "spectral_distance_db": Metric(
        "spectra", ".2f", "difference of the power spectra to those of real images: blur",
        "lower", "dB",
    ),
    "gradient_distance": Metric(
        "gradients x 1000", ".2f", "difference of the histograms of gradients to those of "
        "real images: blur", "lower", scale=1000, in_tables=False,
    ),
    "fid_against_reconstructions": Metric(
        "FID*-{}", ".2f", "Fréchet distance to reconstructions instead of images", "lower"
    ),
    "fid_against_originals": Metric(
        "FID-{} to originals", ".2f", "Fréchet distance of reconstructions to their originals",
        "lower", in_tables=False,
    ),
    "class_accuracy": Metric(
        "class accuracy", ".1f", "share of images whose class the extractor predicts", "higher",
        "%", 100,
    ),
    "accuracy_score": Metric(
        "CAS", ".1f", "accuracy on real images of a classifier trained on the set", "higher",
        "%", 100,
    ),
    # Classifiers and detection
    "accuracy": Metric(
        "accuracy", ".1f", "share of images classified correctly", "higher", "%", 100
    ),
    "auroc": Metric("AUROC", ".3f", "area under the ROC curve, 0.5 is chance", "higher"),
}  # fmt: skip


def format_metric(name: str, value: float | None) -> str:
    """The value of a metric as it is printed; a dash for None."""
    if value is None:
        return DASH
    metric = METRICS[name]
    return f"{metric.scale * value:{metric.format}}" + (" %" if metric.unit == "%" else "")
