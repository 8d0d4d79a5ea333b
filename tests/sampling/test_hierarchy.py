from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from prior_cases import CONFIGS, DOMAINS, inputs, make

from vqvae2.code_grid import CodeGrid
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.sampling import (
    UNKNOWN,
    LevelSampler,
    SamplingConfig,
    erase,
    sample_codes,
    sample_hierarchy,
    sample_level,
    uniforms,
)
from vqvae2.sampling.cuda_graphs import RecordedStep

CONFIG = GatedPixelCNNConfig(
    channels=8, residual_channels=8, num_layers=3, attention_every=2, num_heads=2
)
GRIDS = [CodeGrid(6, 2, 2), CodeGrid(7, 4, 4), CodeGrid(5, 8, 8)]


@pytest.fixture(params=[1, 2, 3], ids=["1-level", "2-levels", "3-levels"])
def priors(request):
    torch.manual_seed(0)
    return [
        Prior(
            CONFIG,
            Domain(
                grid=GRIDS[level],
                coarser=tuple(GRIDS[:level]),
                num_classes=3,
            ),
        )
        .double()
        .eval()
        for level in range(request.param)
    ]


def sample(priors, labels, seeds, **options):
    sampling = options.pop("sampling", [SamplingConfig()] * len(priors))
    return sample_hierarchy(priors, torch.tensor(labels), seeds, sampling, **options)


def test_image_i_depends_on_its_own_seed_never_on_the_batch(priors):
    labels, seeds = [0, 1, 2, 0, 1], [5, 6, 7, 8, 5]
    together = sample(priors, labels, seeds)
    for i in range(5):
        alone = sample(priors, labels[i : i + 1], seeds[i : i + 1])
        for maps, single in zip(together, alone, strict=True):
            assert torch.equal(maps[i], single[0])
    backwards = sample(priors, labels[::-1], seeds[::-1])
    for maps, other in zip(together, backwards, strict=True):
        assert torch.equal(maps, other.flip(0))


def test_other_seeds_and_classes_give_other_images(priors):
    a, b, c = (sample(priors, *spec) for spec in [([0], [1]), ([0], [2]), ([1], [1])])
    assert not torch.equal(a[-1], b[-1])
    if len(priors) > 1:
        assert not torch.equal(a[-1], c[-1])


def test_a_partly_given_map_keeps_what_was_given(priors):
    full = sample(priors, [0, 1], [1, 2])
    given = [codes.clone() for codes in full]
    given[-1][:, given[-1].shape[1] // 2 :] = UNKNOWN
    again = sample(priors, [0, 1], [3, 4], given=given)
    for level in range(len(priors)):
        known = given[level] != UNKNOWN
        assert torch.equal(again[level][known], given[level][known])
    assert not torch.equal(again[-1], full[-1])


def test_the_rest_of_a_partly_given_map_is_drawn_from_the_same_conditional(priors):
    """With the noise of the first drawing, completing it gives the first drawing back."""
    full = sample(priors, [0, 1], [1, 2])
    given = [codes.clone() for codes in full]
    given[-1].view(2, -1)[:, ::3] = UNKNOWN
    for maps, again in zip(full, sample(priors, [0, 1], [1, 2], given=given), strict=True):
        assert torch.equal(maps, again)


def test_keeping_the_coarsest_level_gives_variations(priors):
    if len(priors) == 1:
        given = [None]
    else:
        given = [sample(priors, [0], [1])[0], *[None] * (len(priors) - 1)]
    a, b = (sample(priors, [0], [seed], given=given) for seed in (11, 12))
    if len(priors) > 1:
        assert torch.equal(a[0], b[0])
    assert not torch.equal(a[-1], b[-1])


def test_a_box_erases_every_position_that_it_covers_any_of():
    erased = erase(torch.zeros(1, 4, 4, dtype=torch.int64), (0.3, 0.5, 0.8, 1.0))[0]
    expected = [[0, 0, 0, 0], [0, 0, 0, 0], [0, -1, -1, -1], [0, -1, -1, -1]]
    assert erased.tolist() == expected
    pixels = erase(torch.zeros(1, 4, 4, 3, dtype=torch.int64), (0, 0, 1, 0.25))
    assert (pixels[0, 0] == UNKNOWN).all()
    assert not pixels[0, 1:].any()
    with pytest.raises(ValueError, match="A box is left, top, right, bottom"):
        erase(torch.zeros(1, 4, 4), (0.5, 0, 0.5, 1))


@torch.no_grad()
def test_sampled_frequencies_are_the_prior_probabilities():
    torch.manual_seed(0)
    prior = Prior(CONFIG, Domain(grid=CodeGrid(3, 1, 2))).double().eval()
    count = 20_000
    labels = torch.zeros(count, dtype=torch.int64)
    (codes,) = sample_hierarchy([prior], labels, range(count), [SamplingConfig()])
    seen = torch.bincount(codes.flatten(1) @ torch.tensor([3, 1]), minlength=9) / count
    maps = torch.cartesian_prod(torch.arange(3), torch.arange(3)).view(9, 1, 2)
    expected = prior.log_prob(maps, labels[:9], []).sum(dim=(1, 2)).exp()
    assert (seen - expected).abs().max() < 5 * 0.5 / count**0.5


@pytest.mark.parametrize("context", list(DOMAINS))
@pytest.mark.parametrize("name", list(CONFIGS))
@torch.no_grad()
def test_cached_sampling_equals_sampling_by_whole_passes(name, context):
    """Value by value: what the whole pass says of the next one decides it."""
    prior, draw = make(context, name), SamplingConfig(temperature=0.7, top_k=5)
    values, labels, coarser = inputs(prior)
    embedded, count = prior.embed_context(labels, coarser), prior.domain.num_values
    noise = uniforms([1, 2, 3], count, 0)
    *_, fast = sample_level(prior, embedded, noise, draw)
    slow = torch.zeros_like(values)
    every = torch.arange(prior.domain.grid.num_codes)
    for k in range(count):
        tried = slow.flatten(1).repeat_interleave(len(every), dim=0)
        tried[:, k] = every.repeat(len(slow))
        maps = [c.repeat_interleave(len(every), dim=0) for c in (labels, *coarser)]
        nats = prior.log_prob(tried.view(-1, *prior.domain.shape), maps[0], maps[1:])
        logits = nats.flatten(1)[:, k].view(len(slow), -1)
        slow.view(3, -1)[:, k] = sample_codes(logits, noise[:, k], draw)
    assert torch.equal(fast, slow)


@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("context", ["2-levels", "softmax", "mixture"])
@torch.no_grad()
def test_a_step_does_not_wait_for_the_host(name, context):
    """No value is read back in a step: on the meta device there are none to read."""
    prior = make(context, name)
    _, labels, coarser = inputs(prior)
    embedded = prior.embed_context(labels, coarser).to("meta")
    noise = uniforms([1, 2, 3], prior.domain.num_values, 0)
    for draw in (
        SamplingConfig(),
        SamplingConfig(temperature=0.5, top_k=3, top_p=0.9),
        SamplingConfig(temperature=0),
    ):
        drawing = LevelSampler(prior.to("meta"), embedded, noise, draw, None)
        held = drawing.codes, drawing.previous, drawing.position
        for _ in range(2 * prior.domain.channels * prior.domain.grid.width):
            drawing.step()
        assert held == (drawing.codes, drawing.previous, drawing.position), "all in place"


class FakeGraph:
    """Stands for a CUDA graph: what is recorded runs at a replay, its host part at recording."""

    def replay(self) -> None:
        self.device_part()


@pytest.mark.parametrize("name", ["plain", "pixelcnnpp"])
@torch.no_grad()
def test_recording_skipping_and_replaying_count_as_stepping_does(name, monkeypatch):
    """With a stand-in for the device: a replay does the recorded phase's work and no other's."""
    prior = make("1-level", name)
    embedded = prior.embed_context(torch.zeros(1, dtype=torch.int64), [])
    drawing = LevelSampler(prior, embedded, uniforms([1], 64, 0), SamplingConfig(), None)
    host, done = drawing.cache, []

    def action() -> None:
        phase = prior.phase(host)
        if recording:
            recording[-1].device_part = lambda: done.append(phase)
        else:
            done.append(phase)
        prior.skip(host)

    recording: list[FakeGraph] = []

    @contextmanager
    def graph(made, **_):
        recording.append(made)
        yield
        recording.clear()

    fake = SimpleNamespace(
        CUDAGraph=FakeGraph, graph=graph, device=nullcontext, graph_pool_handle=lambda: None,
        Stream=lambda device: None,
    )  # fmt: skip
    monkeypatch.setattr(torch, "cuda", fake)
    step = RecordedStep(action, lambda: prior.phase(host), lambda: prior.skip(host), "cuda:1")
    expected = []
    for _ in range(32):
        expected.append(prior.phase(host))
        step()
    assert done == expected
    assert host.index == host.network.position.index == 32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="records CUDA graphs: needs a GPU")
@pytest.mark.parametrize("context", list(DOMAINS))
@pytest.mark.parametrize("name", list(CONFIGS))
@torch.no_grad()
def test_recorded_steps_draw_what_steps_draw(name, context):
    prior = make(context, name).cuda()
    _, labels, coarser = inputs(prior)
    embedded = prior.embed_context(labels.cuda(), [codes.cuda() for codes in coarser])
    noise = uniforms([1, 2, 3], prior.domain.num_values, 0)
    *_, recorded = sample_level(prior, embedded, noise, SamplingConfig())
    drawing = LevelSampler(prior, embedded, noise, SamplingConfig(), None)
    for _ in range(prior.domain.num_values):
        drawing.step()
    assert torch.equal(recorded, drawing.codes.view_as(recorded))


def test_drawing_yields_after_every_position():
    prior = make("1-level", "plain")
    _, labels, coarser = inputs(prior)
    context = prior.embed_context(labels, coarser)
    noise = uniforms([0, 1, 2], prior.domain.num_values, 0)
    left = [
        int((m == UNKNOWN).sum()) for m in sample_level(prior, context, noise, SamplingConfig())
    ]
    assert left == [3 * n for n in range(prior.domain.num_values - 1, -1, -1)]


def test_inverse_distribution_function_matches_numpy():
    torch.manual_seed(0)
    params, noise = torch.randn(500, 9).double(), torch.rand(500).double()
    weights = np.exp(params.numpy())
    cumulative = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    pairs = zip(cumulative, noise.numpy(), strict=True)
    expected = [int(np.searchsorted(row, number, "right")) for row, number in pairs]
    assert sample_codes(params, noise, SamplingConfig()).tolist() == expected


def test_temperature_0_takes_the_most_probable_code():
    params = torch.randn(50, 9)
    codes = sample_codes(params, torch.rand(50).double(), SamplingConfig(temperature=0))
    assert torch.equal(codes, params.argmax(dim=1))


def test_top_k_and_top_p_leave_out_the_improbable():
    params = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log().expand(1000, -1)
    noise = torch.linspace(0, 1, 1001)[:-1].double()
    assert sample_codes(params, noise, SamplingConfig(top_k=2)).unique().tolist() == [0, 1]
    assert sample_codes(params, noise, SamplingConfig(top_p=0.7)).unique().tolist() == [0, 1]
    assert sample_codes(params, noise, SamplingConfig(top_p=0.01)).unique().tolist() == [0]
    shares = torch.bincount(sample_codes(params, noise, SamplingConfig(top_k=2))) / 1000
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 1 / 3]), atol=0.01, rtol=0)


def test_noise_at_the_edge_of_1_still_gives_a_code():
    params = torch.zeros(1, 5)
    edge = torch.tensor([np.nextafter(1.0, 0.0)], dtype=torch.float64)
    assert sample_codes(params, edge, SamplingConfig()).item() == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "Temperature must be 0"),
        ({"temperature": float("nan")}, "Temperature must be 0"),
        ({"top_k": 0}, "at least 1 code, got 0"),
        ({"top_p": 0.0}, r"in \(0, 1\], got 0.0"),
        ({"top_p": 1.5}, r"in \(0, 1\], got 1.5"),
    ],
)
def test_settings_that_no_distribution_has_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**options)


def test_bad_requests_are_one_clear_line(priors):
    with pytest.raises(ValueError, match="got 2 seeds for 1 labels"):
        sample(priors, [0], [1, 2])
    with pytest.raises(ValueError, match=r"Labels must be in \[0, 3\)"):
        sample(priors, [3], [1])
    with pytest.raises(ValueError, match="one sampling config per level"):
        sample(priors, [0], [1], sampling=[SamplingConfig()] * 9)
    wrong_shape = [torch.zeros(1, 3, 3, dtype=torch.int64)] + [None] * (len(priors) - 1)
    with pytest.raises(ValueError, match="must have shape"):
        sample(priors, [0], [1], given=wrong_shape)
    out_of_range = [torch.full((1, 2, 2), 6)] + [None] * (len(priors) - 1)
    with pytest.raises(ValueError, match=r"must be in \[0, 6\)"):
        sample(priors, [0], [1], given=out_of_range)
