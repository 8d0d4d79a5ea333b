from unittest import mock

import torch

from vqvae2.autoencoder.straight_through import pass_gradient, squared_distance


def test_straight_through_copies_the_gradient():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    vectors, weight = torch.randn_like(x), torch.randn_like(x)
    out = pass_gradient(x, vectors, "straight")
    torch.testing.assert_close(out, vectors)
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    torch.testing.assert_close(gradient, weight)


def test_rotation_trick_gives_the_codes_and_a_rotated_gradient():
    torch.manual_seed(0)
    x = torch.randn(1, 5, 1, 1, dtype=torch.float64, requires_grad=True)
    vectors, weight = torch.randn_like(x), torch.randn_like(x)
    out = pass_gradient(x, vectors, "rotate")
    assert torch.equal(out, x + (vectors - x)) or torch.allclose(out, vectors)
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    a = (x.detach() / x.detach().norm()).flatten()
    b = (vectors / vectors.norm()).flatten()
    # The rotation in the plane of a and b, written down independently (Rodrigues).
    cosine = a @ b
    turn = torch.outer(b, a) - torch.outer(a, b)
    rotation = torch.eye(5).double() + turn + turn @ turn / (1 + cosine)
    torch.testing.assert_close(rotation @ a, b)
    scale = vectors.norm() / x.detach().norm()
    torch.testing.assert_close(gradient.flatten(), scale * rotation.T @ weight.flatten())


def test_the_gradient_of_the_commitment_is_that_of_the_mean_squared_error():
    torch.manual_seed(0)
    x, constant = torch.randn(2, 3, 5, 4, 6, dtype=torch.float64)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: squared_distance(x, constant), x)
    with mock.patch("vqvae2.autoencoder.straight_through.VECTORS_PER_CHUNK", {"cpu": 24}):
        parts = squared_distance(x, constant)
    torch.testing.assert_close(parts, torch.nn.functional.mse_loss(x, constant))
