from prior_cases import make


def test_neighbouring_intensities_start_with_similar_embeddings():
    vectors = make("softmax", "plain").values.vectors.weight.detach()[:6]
    distances = vectors.diff(dim=0).norm(dim=1)
    assert distances.max() < (vectors[0] - vectors[-1]).norm()
