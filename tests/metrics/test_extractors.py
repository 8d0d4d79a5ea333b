from pathlib import Path

import pytest
import torch
from builders import save_hub_classifier, save_network

from vqvae2.metrics.extractors import fetch, open_extractor, require_finite, require_rows


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
