"""Every metric once: its name, format, meaning and unit.

The command line, the report and comparisons print metrics by this table. A new metric needs one
entry here, under the key that its values have in a `Measurement`.
"""

from dataclasses import dataclass

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Metric:
    """How a metric is named and printed.

    Arguments:
        name: as in papers; "{}" is the name of the feature extractor.
        format: of the value times `scale`.
        meaning: in a few words.
        unit: "" where there is none.
        scale: factor from the stored to the printed value.
        in_tables: whether tables of sets of images have a column for it.
    """

    name: str
    format: str
    meaning: str
    unit: str = ""
    scale: float = 1.0
    in_tables: bool = True

    def title(self, extractor: str = "") -> str:
        """The head of a column: the name with its extractor, scale and unit."""
        name = self.name.replace("-{}", f"-{extractor}" if extractor else "")
        if self.unit == "%" or self.unit in name.split():
            return name  # the sign is beside each value, or the unit in the name
        return f"{name}, {self.unit}" if self.unit else name


METRICS = {
    # Reconstruction
    "mse": Metric("MSE", ".5f", "mean squared error, images in [0, 1]"),
    "mse_over_variance": Metric("MSE / variance", ".4f", "MSE / variance of the pixels"),
    "psnr_db": Metric("PSNR", ".2f", "peak signal-to-noise ratio", "dB"),
    "ssim": Metric("SSIM", ".3f", "structural similarity, 1 is identical"),
    "ms_ssim": Metric(
        "MS-SSIM", ".3f", "SSIM over five scales, for images of 176 pixels and more"
    ),
    "mse_level_alone": Metric("MSE alone", ".5f", "MSE when one level alone is decoded"),
    "mse_level_blanked": Metric("MSE without", ".5f", "MSE when all other levels are decoded"),
    "codes_used": Metric("codes used", ".0f", "number of codes that occur"),
    "share_used": Metric("share used", ".0f", "share of the codebook that occurs", "%", 100),
    "perplexity": Metric(
        "perplexity", ".0f", "number of equally likely codes of the same entropy"
    ),
    # Priors
    "validation_nats_per_code": Metric("nats per code", ".3f", "of validation images"),
    "train_nats_per_code": Metric("training nats per code", ".3f", "of training images"),
    "gap_nats_per_code": Metric(
        "gap", "+.3f", "validation minus training: memorisation", "nats per code"
    ),
    "parameters": Metric("parameters", ",.0f", "number of weights of each prior"),
    "validation_bits_per_dim": Metric(
        "bits per dimension", ".3f",
        "bits per image value: rate of the codes; likelihood of a prior on pixels",
    ),
    # Sets of images against training images
    "fid": Metric("FID-{}", ".2f", "Fréchet distance of the features to those of training images"),
    "kid": Metric(
        "KID-{}", ".2f", "kernel distance of the features to those of training images",
        "x 1000", 1000,
    ),
    "kid_deviation": Metric("±", ".2f", "standard deviation of KID x 1000 over subsets", "", 1000),
    "inception_score": Metric(
        "IS-{}", ".2f", "exp of the information between image and predicted class"
    ),
    "inception_score_deviation": Metric(
        "± of IS", ".2f", "standard deviation over parts", in_tables=False
    ),
    "precision": Metric("precision", ".3f", "share of the set near training images"),
    "recall": Metric("recall", ".3f", "share of training images near the set"),
    "fid_against_reconstructions": Metric(
        "FID*-{}", ".2f", "Fréchet distance to reconstructions instead of images"
    ),
    "fid_against_originals": Metric(
        "FID-{} to originals", ".2f", "Fréchet distance of reconstructions to their originals",
        in_tables=False,
    ),
    "class_accuracy": Metric(
        "class accuracy", ".1f", "share of images whose class the extractor predicts", "%", 100
    ),
    "accuracy_score": Metric(
        "CAS", ".1f", "accuracy on real images of a classifier trained on the set", "%", 100
    ),
    # Classifiers and detection
    "accuracy": Metric("accuracy", ".1f", "share of images classified correctly", "%", 100),
    "auroc": Metric("AUROC", ".3f", "area under the ROC curve, 0.5 is chance"),
}  # fmt: skip


def format_metric(name: str, value: float | None) -> str:
    """The value of a metric as it is printed; a dash for None."""
    if value is None:
        return DASH
    metric = METRICS[name]
    return f"{metric.scale * value:{metric.format}}" + (" %" if metric.unit == "%" else "")
