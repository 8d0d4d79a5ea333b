import pytest
import torch

from vqvae2.report.blocks import embedded_image
from vqvae2.report.formatting import describe_sampling, format_number, with_code
from vqvae2.sampling import SamplingConfig


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00481234, "0.004812"),
        (125.0, "125"),
        (1135680, "1,135,680"),
        (22.3456, "22.35"),
        (float("nan"), "nan"),
        ([0.5, 2.0], "0.5, 2"),
        ("torch", "torch"),
        (None, "\N{EN DASH}"),
    ],
)
def test_numbers_have_four_digits_and_groups_of_thousands(value, text):
    assert format_number(value) == text


def test_commands_in_a_sentence_become_code_and_the_rest_is_escaped():
    text = with_code("run `vqvae2 train --run <x>` & wait")
    assert text == "run <code>vqvae2 train --run &lt;x&gt;</code> &amp; wait"


def test_sampling_settings_are_described_in_words():
    assert describe_sampling(SamplingConfig()) == "temperature 1, all codes"
    config = SamplingConfig(temperature=0.9, top_k=5, top_p=0.5)
    assert describe_sampling(config) == "temperature 0.9, top-k 5, top-p 0.5"


def test_large_images_are_stored_as_jpeg_and_small_ones_without_losses():
    noise = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert embedded_image(noise, "").startswith('<img src="data:image/jpeg;base64,')
    assert embedded_image(noise[:, :64, :64], "").startswith('<img src="data:image/png;base64,')
