"""The fused log-partition against autograd's own."""

import numpy as np
import pytest
import torch

from dr_core.model.partition import log_partition


def tensors(num_states: int, num_classes: int, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = ((num_states, 7), (num_classes, 7), (num_classes,))
    return [
        (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_() for shape in shapes
    ]


@pytest.mark.parametrize(("num_states", "num_classes"), [(9, 40), (1, 1), (0, 5)])
def test_value_and_gradients_are_those_of_logsumexp(num_states: int, num_classes: int) -> None:
    weight_N = torch.linspace(0.1, 2, num_states, dtype=torch.float64)
    ours, theirs = tensors(num_states, num_classes), tensors(num_states, num_classes)
    value = log_partition(*ours)
    expected = (theirs[0] @ theirs[1].T + theirs[2]).logsumexp(1)
    torch.testing.assert_close(value, expected)
    (value * weight_N).sum().backward()
    (expected * weight_N).sum().backward()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_logits_in_the_thousands_neither_overflow_nor_vanish() -> None:
    user, vectors, bias = (tensor.detach().float().requires_grad_() for tensor in tensors(6, 30, scale=40.0))
    value = log_partition(user, vectors, bias)
    exact = (user.detach().double() @ vectors.detach().double().T + bias.detach().double()).logsumexp(1)
    np.testing.assert_allclose(value.detach().numpy(), exact.numpy(), rtol=1e-5)
    assert float(exact.abs().max()) > 1000
    value.sum().backward()
    assert bias.grad is not None
    assert float(bias.grad.sum()) == pytest.approx(6, rel=1e-5)


def test_it_works_below_autocast() -> None:
    user, vectors, bias = (tensor.detach().float().requires_grad_() for tensor in tensors(6, 30))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = log_partition(user, vectors, bias)
    value.sum().backward()
    assert value.dtype == torch.float32
    exact = (user @ vectors.T + bias).logsumexp(1)
    torch.testing.assert_close(value, exact, atol=0.05, rtol=0.02)
    assert all(tensor.grad is not None and tensor.grad.dtype == torch.float32 for tensor in (user, vectors, bias))
