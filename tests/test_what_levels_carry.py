from pathlib import Path

import torch

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_a_linear_probe_predicts_what_the_codes_contain_and_nothing_else(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from what_levels_carry import code_features, probe_accuracy

    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 6, (600, 2, 2), generator=generator)
    truth = codes[:, 0, 1] // 2
    noise = torch.randint(0, 3, (600,), generator=generator)

    def score(encoding, target):
        x = code_features(codes, 6, encoding)
        return probe_accuracy((x[:400], target[:400]), (x[400:], target[400:]))

    assert score("positions", truth) > 0.98
    assert score("counts", truth) < 0.8
    assert score("positions", noise) < 0.5
    assert code_features(codes, 6, "positions").shape == (600, 24)
