from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import save_hub_classifier, save_network, scripted

from vqvae2.metrics.extractors import fetch, open_extractor, require_finite, require_rows
from vqvae2.metrics.features import extract_features


def test_a_network_that_cannot_be_used_is_one_clear_line(tmp_path):
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"must give one row of numbers per image, \(4, D\), got"):
        require_rows(torch.zeros(4, 3, 3), images, "Odd")
    with pytest.raises(ValueError, match="gives NaN or inf for 4 of 4 images"):
        require_finite(torch.full((4, 2), torch.nan), "Odd")
    with pytest.raises(ValueError, match="There is no network at"):
        open_extractor(str(tmp_path / "missing.pt"))
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(ValueError, match="is not a TorchScript network"):
        open_extractor(str(tmp_path / "text.pt"))


class Counted(torch.nn.Module):
    """A network that counts its calls; where it is `plain`, its last layer gives its logits."""

    def __init__(self, plain: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Linear(3, 5), torch.nn.Linear(5, 4)
        self.other = torch.nn.Linear(5, 4)
        self.calls, self.scale = 0, 1.0 if plain else 2.0

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        self.calls += 1
        features = torch.relu(self.first(images.float().mean(dim=[2, 3])))
        return features if return_features else self.last(features * self.scale).softmax(dim=1)


@pytest.mark.parametrize("plain", [True, False])
def test_a_network_is_called_once_per_batch_where_its_last_layer_gives_its_logits(
    plain, tmp_path, images
):
    network = scripted(Counted(plain))
    network.save(str(tmp_path / "counted.pt"))
    extractor = open_extractor(str(tmp_path / "counted.pt"))
    batches = images[0][:24].split(8)
    with torch.no_grad():
        for batch in batches:
            outputs = extractor.outputs(batch)
            assert torch.equal(outputs.features, network(batch, return_features=True))
            assert torch.equal(outputs.probabilities, network(batch))
    # Two calls compare the layers with the probabilities of the first batch.
    assert extractor.network.module.calls == 2 + 2 * (1 if plain else 2)


def test_features_of_a_set_need_one_pass_per_batch(extractor, images):
    sizes = []

    def count(batch):
        sizes.append(len(batch))
        return extractor.network(batch)

    counted = replace(extractor, network=count)
    features = extract_features(counted, images[0][:20].split(8))
    assert sizes == [8, 8, 4]
    assert torch.equal(features.features, extractor.features(images[0][:20]))
    torch.testing.assert_close(features.probabilities, extractor.probabilities(images[0][:20]))


def test_nan_of_a_network_is_one_clear_line(extractor, images):
    def invalid(batch):
        outputs = extractor.network(batch)
        return replace(outputs, features=outputs.features / 0)

    with pytest.raises(ValueError, match="Small gives NaN or inf for 4 of 4 images"):
        extract_features(replace(extractor, network=invalid), [images[0][:4]])


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_features_of_a_hub_classifier_are_the_input_of_its_last_layer(kind, tmp_path, images):
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


def test_a_network_is_downloaded_once_and_its_hash_checked(tmp_path, monkeypatch):
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
    with pytest.raises(ValueError, match=r"could not be downloaded .* give the path"):
        open_extractor(Path("/nowhere/other.pt").as_uri())
