"""What files from strangers must not be able to do (docs/security.md)."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from builders import save_hub_classifier, synthetic_images
from noise_images import config

from vqvae2.cli.display import console
from vqvae2.cli.main import run
from vqvae2.data.images import open_images
from vqvae2.export.samples import file_name
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import png
from vqvae2.metrics.extractors import open_extractor
from vqvae2.pipeline import Pipeline

DOCUMENT = Path(__file__).parent.parent / "docs" / "security.md"


def test_every_test_that_the_document_names_is_there():
    tests = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    names = {word.strip("`,") for word in DOCUMENT.read_text().split() if "`test_" in word}
    assert len(names) >= 8
    for name in names:
        assert f"def {name}(" in tests, name


def test_a_model_of_the_hub_cannot_run_code(tmp_path):
    """Its config names a class in a file of its own, which would create a file if it ran."""
    save_hub_classifier(tmp_path / "net", "vit")
    path, trace = tmp_path / "net" / "config.json", tmp_path / "trace"
    document = json.loads(path.read_text())
    document["model_type"] = "stranger"
    document["auto_map"] = {
        "AutoConfig": "code.StrangerConfig",
        "AutoModelForImageClassification": "code.StrangerModel",
    }
    path.write_text(json.dumps(document))
    (tmp_path / "net" / "code.py").write_text(f"open({str(trace)!r}, 'w').write('ran')\n")
    with pytest.raises(ValueError, match="The hub gave no image classifier"):
        open_extractor(f"hub:{tmp_path / 'net'}")
    assert not trace.exists()


def test_a_pipeline_fetches_weights_and_configs_alone(monkeypatch, tmp_path):
    import huggingface_hub

    requested = {}

    def fetch(name, **options):
        requested.update(options)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(ValueError, match="is missing"):
        Pipeline.from_pretrained("someone/model")
    assert requested["allow_patterns"] == ["*.json", "*.safetensors"]


def test_an_archive_writes_nothing_outside(tmp_path):
    folder = tmp_path / "deep" / "data"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "train.tar", "w") as archive:
        for number, image in enumerate(synthetic_images(6)):
            for name in (f"../../escaped-{number}", f"{tmp_path}/far/escaped-{number}"):
                data = png(to_pil(image))
                member = tarfile.TarInfo(f"{name}.png")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    data = open_images(config(folder / "train.tar", validation_fraction=0.3))
    assert len(data.train) + len(data.validation) == 12
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_class_name_cannot_lead_out_of_the_folder():
    names = ("../../x", "/etc/passwd", "a\0b", "", "cat")
    for label in range(len(names)):
        name = file_name(names, label)
        assert name
        assert Path(name).name == name
        assert not set(name) & set("/\\\0.")


def test_names_cannot_steer_the_terminal(capsys, tmp_path):
    console.print("class \x1b[2J\x1b]0;title\x07 and \x9b31m", "\x08\x7f two\nlines\tstay")
    output = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\x08", "\x7f"} & set(output)
    assert "two\nlines" in output
    assert run(["evaluate", str(tmp_path / "\x1b[31mno")]) == 2
    assert "\x1b" not in capsys.readouterr().err
