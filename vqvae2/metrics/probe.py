"""Linear probes: what a linear map can predict from the codes of one level.

The paper says that the top level models global shape and the bottom level local texture (Sec.
3.1). A multinomial logistic regression from one level's codes (one-hot per position, or counts per
image) to a known factor measures how far that holds.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Encoding = Literal["positions", "counts"]


def code_features(codes: Tensor, num_codes: int, encoding: Encoding) -> Tensor:
    """Codes (B, H, W) as a matrix: one-hot positions (B, H W K), or counts (B, K)."""
    one_hot = F.one_hot(codes.flatten(1), num_codes).float()
    if encoding == "positions":
        return one_hot.flatten(1)
    return one_hot.mean(dim=1) * 10


def probe_accuracy(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], decay: float = 1e-3
) -> float:
    """Test accuracy of logistic regression; both sets are (features (B, F), targets (B,))."""
    (x, y), (x_test, y_test) = train, test
    model = nn.Linear(x.shape[1], int(y.max()) + 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(model(x), y) + decay * model.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return float((model(x_test).argmax(dim=1) == y_test).double().mean())
