"""What is known of a source before its images are decoded."""

from builders import make_folder

from vqvae2.data.config import DataConfig
from vqvae2.data.facts import image_facts


def test_facts_of_a_folder_are_its_number_of_images_classes_and_sides(tmp_path):
    data = make_folder(tmp_path / "data", count=40, classes=4)
    facts = image_facts(DataConfig(source=str(data), validation_fraction=0.5))
    assert (facts.num_classes, facts.short_side) == (4, 24)
    assert 8 < facts.num_images < 32
    assert (
        image_facts(DataConfig(source=str(make_folder(tmp_path / "flat", 4, 0)))).num_classes == 1
    )


def test_damaged_images_tell_nothing_about_sides(tmp_path):
    data = make_folder(tmp_path / "data", count=6, classes=0)
    for path in sorted(data.iterdir())[:4]:
        path.write_bytes(path.read_bytes()[:10])
    assert image_facts(DataConfig(source=str(data))).short_side in (0, 24)
    for path in data.iterdir():
        path.write_bytes(b"no image")
    assert image_facts(DataConfig(source=str(data))).short_side == 0


def test_the_built_in_images_have_labels():
    facts = image_facts(DataConfig(synthetic_images=100))
    assert (facts.num_classes, facts.short_side) == (12, 64)
