"""Copies that let neither the host nor the device wait."""

import pytest
import torch
import torch.distributed as dist
from simulated_cuda import DEVICE, SimulatedCuda

from vqvae2.distributed import LateFlag, World
from vqvae2.transfers import HostCopy, pin, to_device


def test_tensors_reach_the_device_from_pinned_memory_without_waiting():
    batch = ([torch.arange(3), torch.ones(2)], torch.zeros(4))
    with SimulatedCuda() as cuda:
        (numbers, _), _ = to_device(pin(batch), DEVICE)
        to_device(torch.zeros(5), DEVICE)  # pinned on the way
        cuda.counts.require_asynchronous()
        assert cuda.counts.copies == 4
        assert numbers.cpu().tolist() == [0, 1, 2]


def test_on_the_cpu_nothing_is_copied():
    tensor = torch.arange(3)
    assert to_device(tensor, "cpu") is tensor


def test_a_copy_to_the_host_waits_only_when_it_is_read():
    with SimulatedCuda() as cuda:
        copy = HostCopy(to_device(torch.arange(3), DEVICE))
        assert (cuda.counts.reads, cuda.counts.waits) == ([], 0)
        assert copy.read().tolist() == [0, 1, 2]
        assert (cuda.counts.reads, cuda.counts.waits) == ([], 1)


def test_a_flag_of_one_process_is_read_at_once():
    flag = LateFlag(World())
    assert [flag.any(raised) for raised in (False, True, False)] == [False, True, False]


def test_a_flag_of_several_processes_is_read_one_step_late(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)
    flag = LateFlag(World(0, 2))
    raised = [flag.any(value) for value in (False, True, False, False)]
    assert raised == [False, False, True, False]


def test_a_flag_of_several_processes_never_waits_for_the_step_it_is_raised_in(monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: None)
    with SimulatedCuda() as cuda:
        flag = LateFlag(World(0, 2, "cuda"))
        assert [flag.any(True), flag.any(False)] == [False, True]
        cuda.counts.require_asynchronous()
