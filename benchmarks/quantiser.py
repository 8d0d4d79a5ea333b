"""The codebook against the common practice: time of search and update, and their memory.

    python benchmarks/quantiser.py

Also a part of `benchmarks/training.py`.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from processes import in_process, peak_mib

from vqvae2.autoencoder.codebook import Codebook, CodebookConfig
from vqvae2.cli.display import table

NUM_VECTORS, NUM_CODES, CODE_SIZE = 262_144, 512, 64


def measure_quantiser(form: str) -> dict[str, float]:
    """Seconds of search and update, and MiB beside input and output."""
    torch.manual_seed(0)
    x = torch.randn(NUM_VECTORS // 4096, CODE_SIZE, 64, 64)
    codebook = Codebook(CodebookConfig(num_codes=NUM_CODES, code_size=CODE_SIZE)).eval()
    noise = torch.Generator().manual_seed(0)

    def common() -> None:
        """All distances at once, and one-hot rows times the vectors, in both directions."""
        rows = x.movedim(1, -1).reshape(-1, CODE_SIZE)
        squares = rows.square().sum(1, keepdim=True) + codebook.vectors.square().sum(1)
        nearest = (squares - 2 * rows @ codebook.vectors.T).argmin(1)
        one_hot = F.one_hot(nearest, NUM_CODES).float()
        (one_hot @ codebook.vectors).view(-1, 64, 64, CODE_SIZE).movedim(-1, 1).contiguous()
        one_hot.sum(0), one_hot.T @ rows

    def ours() -> None:
        codebook.update(codebook(x), noise)

    step: Callable[[], None] = common if form == "common" else ours
    before = peak_mib()
    with torch.no_grad():
        step()
        after = peak_mib()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    results_mib = (x.numel() * 4 + NUM_VECTORS * 8) / 2**20  # vectors and codes
    return {"seconds": min(times), "temporaries_mib": after - before - results_mib}


def compare_quantisers() -> dict[str, object]:
    """The codebook against the common practice."""
    forms = {form: in_process(measure_quantiser, form) for form in ("ours", "common")}
    rows = [
        [form, f"{1000 * metrics['seconds']:.0f}", f"{metrics['temporaries_mib']:.0f}"]
        for form, metrics in forms.items()
    ]
    title = f"quantiser, {NUM_VECTORS:,} vectors of {CODE_SIZE}, {NUM_CODES} codes"
    table(title, ["form", "ms", "MiB of temporaries"], rows)
    return {"quantiser": forms}


if __name__ == "__main__":
    compare_quantisers()
