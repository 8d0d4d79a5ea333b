"""Every metric is described once."""

import pytest
from builders import small_autoencoder, synthetic_images

from vqvae2.metrics.describe import METRICS, format_metric
from vqvae2.metrics.distortion import measure_distortion


def test_every_metric_of_a_reconstruction_is_described():
    images = synthetic_images(2).double()
    measured = measure_distortion(small_autoencoder((2, 4)), [images])
    assert {*measured.values, *measured.per_level} <= set(METRICS)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("mse", 0.00344123, "0.00344"),
        ("psnr_db", 24.637, "24.64"),
        ("kid", 0.01234, "12.34"),
        ("class_accuracy", 0.787, "78.7 %"),
        ("gap_nats_per_code", 0.25, "+0.250"),
        ("parameters", 1234567, "1,234,567"),
        ("fid", None, "\N{EN DASH}"),
    ],
)
def test_values_are_printed_by_their_description(name, value, text):
    assert format_metric(name, value) == text


def test_titles_carry_the_extractor_and_the_unit():
    assert METRICS["fid"].title("Net") == "FID-Net"
    assert METRICS["kid"].title("Net") == "KID-Net, x 1000"
    assert METRICS["psnr_db"].title() == "PSNR, dB"
    assert METRICS["precision"].title("Net") == "precision"


def test_an_explanation_says_which_values_are_better():
    assert METRICS["mse"].explanation == "mean squared error, images in [0, 1]; lower is better"
    assert METRICS["recall"].explanation.endswith("; higher is better")
    assert METRICS["parameters"].explanation == METRICS["parameters"].meaning


def test_every_format_takes_a_number():
    for name, metric in METRICS.items():
        assert format_metric(name, 0.5)
        assert metric.meaning
