"""FID, KID, inception score, precision and recall against formulas in NumPy and SciPy."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from builders import save_hub_classifier, save_network

from vqvae2.data.synthetic import render
from vqvae2.metrics.extractors import (
    Extractor,
    checked,
    fetch,
    open_extractor,
    stream,
    torchscript,
)
from vqvae2.metrics.features import distances_between, look
from vqvae2.metrics.fid import frechet_distance
from vqvae2.metrics.inception_score import inception_score
from vqvae2.metrics.kid import kernel_distance
from vqvae2.metrics.precision_recall import precision_recall
from vqvae2.randomness import generator


@pytest.fixture(scope="module")
def extractor(tmp_path_factory) -> Extractor:
    path = tmp_path_factory.mktemp("network") / "small.pt"
    save_network(path)
    return torchscript(path, "Small")


@pytest.fixture(scope="module")
def images() -> list[torch.Tensor]:
    """Two sets of the built-in images, the second darker."""
    first, second = (render(torch.arange(300), 24, seed=seed).images for seed in (1, 2))
    return [first, (second * 0.8).to(torch.uint8)]


@pytest.fixture(scope="module")
def rows(extractor, images) -> list[torch.Tensor]:
    return [torch.cat(list(stream(extractor.features, part.split(64)))) for part in images]


def test_fid_matches_scipy(rows):
    a, b = (part.numpy() for part in rows)
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected += np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert frechet_distance([rows[0]], [rows[1]]) == pytest.approx(expected, rel=1e-4)


def test_kid_matches_numpy(rows):
    """With subsets of the whole sets every subset is the same."""
    a, b = (part.numpy() for part in rows)

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    n = len(a)
    expected = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k in (kernel(a, a), kernel(b, b)))
    expected -= 2 * kernel(a, b).mean()
    mean, deviation = kernel_distance(*rows)
    assert mean == pytest.approx(expected, rel=1e-4)
    assert deviation < 1e-12


def test_inception_score_matches_numpy(extractor, images):
    p = torch.cat(list(stream(extractor.probabilities, images[0].split(64)))).numpy()
    torch.manual_seed(generator("inception score", 0).initial_seed())
    order = torch.randperm(len(p)).numpy()
    parts = np.array_split(p[np.lexsort(p.T[::-1])][order], 10)
    scores = [np.exp((q * np.log(q / q.mean(axis=0))).sum(axis=1).mean()) for q in parts]
    mean, deviation = inception_score(torch.from_numpy(p))
    assert mean == pytest.approx(np.mean(scores), rel=1e-4)
    assert deviation == pytest.approx(np.std(scores, ddof=1), rel=1e-4)


def test_inception_score_is_the_number_of_classes_at_best_and_one_at_worst():
    sure = torch.eye(7, dtype=torch.float64).repeat(200, 1)
    assert inception_score(sure)[0] == pytest.approx(7, rel=0.05)
    assert inception_score(torch.full((50, 7), 1 / 7))[0] == pytest.approx(1)


def test_precision_and_recall_equal_brute_force(rows):
    a, b = (part.numpy() for part in rows)

    def inside(points, centres):
        count = 0
        for point in points:
            for centre in centres:
                reach = np.sort(np.sqrt(((centres - centre) ** 2).sum(axis=1)))[3]
                if np.sqrt(((point - centre) ** 2).sum()) <= reach:
                    count += 1
                    break
        return count / len(points)

    few = [part[:60] for part in rows]
    expected = inside(b[:60], a[:60]), inside(a[:60], b[:60])
    assert precision_recall(*few) == expected
    assert 0 < expected[0] < 1


def test_a_set_against_itself_is_at_no_distance(rows):
    same = rows[0]
    assert frechet_distance([same], [same.flip(0)]) == pytest.approx(0, abs=1e-8)
    assert precision_recall(same, same) == (1.0, 1.0)
    # Unbiased, and so a little below nothing where both sets are one.
    assert abs(kernel_distance(same, same)[0]) < 1e-3


def test_mode_collapse_has_high_precision_low_recall(rows):
    collapsed = rows[0][:4].repeat(75, 1) + 1e-6 * torch.randn(300, rows[0].shape[1])
    precision, recall = precision_recall(rows[0], collapsed)
    assert precision > 0.95
    assert recall < 0.05


def test_figures_do_not_depend_on_batches_or_order(extractor, images, rows):
    other = torch.cat(list(stream(extractor.features, images[1].flip(0).split(7))))
    assert frechet_distance(rows[0].split(11), [other]) == pytest.approx(
        frechet_distance([rows[0]], rows[1].split(50)), rel=1e-6
    )
    assert kernel_distance(rows[0], other) == pytest.approx(kernel_distance(*rows), rel=1e-5)
    assert precision_recall(rows[0], other) == precision_recall(*rows)
    p, q = (
        torch.cat(list(stream(extractor.probabilities, part.split(n))))
        for part, n in ((images[0], 64), (images[0].flip(0), 9))
    )
    assert inception_score(p)[0] == pytest.approx(inception_score(q)[0], rel=1e-6)


def test_a_set_is_seen_once_for_all_figures(extractor, images, rows):
    real, other = (look(extractor, part.split(64)) for part in images)
    figures = distances_between(real, other)
    assert figures["fid"] == pytest.approx(frechet_distance([rows[0]], [rows[1]]), rel=1e-4)
    assert (figures["precision"], figures["recall"]) == pytest.approx(precision_recall(*rows))
    assert figures.num_images == 300
    some = other.some(torch.arange(50))
    assert distances_between(real, some).num_images == 50
    with pytest.raises(ValueError, match="at least one image to look at"):
        look(extractor, [])


def test_metrics_leave_the_global_random_numbers_alone(rows):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    kernel_distance(*rows)
    inception_score(torch.full((50, 7), 1 / 7))
    assert torch.equal(torch.rand(3), expected)


def test_what_a_network_must_give_is_one_clear_line(tmp_path):
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"must give one row of numbers a image, \(4, D\), got"):
        checked(torch.zeros(4, 3, 3), images, "Odd")
    with pytest.raises(ValueError, match="NaN or infinite"):
        checked(torch.full((4, 2), torch.nan), images, "Odd")
    with pytest.raises(ValueError, match="There is no network at"):
        open_extractor(str(tmp_path / "missing.pt"))
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ValueError, match="is not a TorchScript network"):
        open_extractor(str(tmp_path / "text.pt"))


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_classifier_of_the_hub_gives_the_input_of_its_last_layer(kind, tmp_path, images):
    saved = save_hub_classifier(tmp_path / "small-net", kind)
    extractor = open_extractor(f"hub:{tmp_path / 'small-net'}")
    assert extractor.name == "small-net"
    with torch.no_grad():
        features, probabilities = (
            extract(images[0][:6]) for extract in (extractor.features, extractor.probabilities)
        )
        assert probabilities.shape == (6, 3)
        assert torch.allclose(probabilities, saved(features).softmax(dim=1), atol=1e-6)
    assert open_extractor(f"hub:{tmp_path / 'small-net'}", "Named").digest == extractor.digest
    with pytest.raises(ValueError, match="The hub gave no image classifier"):
        open_extractor(f"hub:{tmp_path}")


def test_too_few_images_are_one_clear_line(rows):
    with pytest.raises(ValueError, match="FID needs at least 2 images a set, got 300 and 1"):
        frechet_distance([rows[0]], [rows[1][:1]])
    with pytest.raises(ValueError, match="FID needs at least 2 images a set, got 0 and 0"):
        frechet_distance([], [])
    with pytest.raises(ValueError, match="features of one network, got 24 and 5"):
        frechet_distance([rows[0]], [rows[1][:, :5]])
    with pytest.raises(ValueError, match="KID needs at least 2 images"):
        kernel_distance(rows[0], rows[1][:1])
    with pytest.raises(ValueError, match="need at least 4 samples, got 3"):
        precision_recall(rows[0], rows[1][:3])
    with pytest.raises(ValueError, match="takes 10 parts of a set, got 9 images"):
        inception_score(torch.full((9, 2), 0.5))


def test_a_network_is_fetched_once_and_its_hash_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("VQVAE2_CACHE", str(tmp_path / "cache"))
    save_network(tmp_path / "served.pt")
    url = (tmp_path / "served.pt").as_uri()
    extractor = open_extractor(url, name="Served")
    assert extractor.name == "Served"
    (tmp_path / "served.pt").unlink()
    save_network(tmp_path / "elsewhere" / "served.pt", outputs=3)
    other = open_extractor((tmp_path / "elsewhere" / "served.pt").as_uri())
    assert other.digest != extractor.digest, "of the same name from another place"
    assert open_extractor(url).digest == extractor.digest, "from the cache"
    with pytest.raises(ValueError, match="expected 00; remove it and try again"):
        fetch(url, sha256="00")
    with pytest.raises(ValueError, match=r"could not be fetched .* give the path"):
        open_extractor(Path("/nowhere/other.pt").as_uri())
