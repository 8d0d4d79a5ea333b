"""Images in a temporary file: the same images, no trace on disk, one line where it is full."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vqvae2.data.temporary import TemporaryImages


def random_images(count: int, size: int = 6) -> torch.Tensor:
    noise = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=noise)


def test_images_are_read_as_they_were_written_in_any_order(tmp_path: Path) -> None:
    images, labels = random_images(9), torch.arange(9) % 4
    stored = TemporaryImages(tmp_path, labels, 6)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    for part in order.split(4):
        stored.write(part, images[part].to(memory_format=torch.channels_last))
    for indices in (torch.arange(9), torch.tensor([8, 0, 8, 3]), torch.empty(0).long()):
        assert torch.equal(stored.batch(indices), images[indices])
    assert (len(stored), stored.size, len(stored.order)) == (9, 6, 9)
    assert torch.equal(stored.labels, labels)


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes the file when it is closed")
def test_nothing_is_left_by_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, torch\n"
        "from vqvae2.data.temporary import TemporaryImages\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "images = TemporaryImages(folder, torch.zeros(9).long(), 32)\n"
        "images.write(torch.arange(9), torch.zeros(9, 3, 32, 32, dtype=torch.uint8))\n"
        "assert not list(folder.iterdir())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert run.returncode == -9
    assert not list(tmp_path.iterdir())


def no_space(*arguments: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


NO_SPACE = (
    r"no space for a temporary file of 1 MiB with 100 images \(.*left on device\); free some"
)


def test_a_full_disk_is_one_clear_line_before_anything_is_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", no_space, raising=False)
    with pytest.raises(ValueError, match=NO_SPACE):
        TemporaryImages(tmp_path, torch.zeros(100).long(), 59)


def test_a_disk_that_fills_up_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    stored = TemporaryImages(tmp_path, torch.zeros(100).long(), 59)
    for write in (no_space, lambda image: 10):  # a disk may also take a part
        stored._file = FullDisk(write)
        with pytest.raises(ValueError, match=NO_SPACE):
            stored.write(torch.tensor([0]), random_images(1, 59))


class FullDisk:
    def __init__(self, write: object) -> None:
        self.write = write

    def seek(self, position: int) -> None: ...


def test_a_folder_that_is_missing_or_cannot_reserve_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"missing has no space .* \(\[Errno 2\] No such file"):
        TemporaryImages(tmp_path / "missing", torch.zeros(2).long(), 4)

    def unsupported(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    assert len(TemporaryImages(tmp_path, torch.zeros(2).long(), 4)) == 2
