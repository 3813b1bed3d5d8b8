import resource
from pathlib import Path

import torch

from image_finder.components.training.memory import freed_memory_kept

_BLOCK = 16 << 20  # numbers of four bytes: 64 MB, which glibc maps anew each time


def faults_of_ten_blocks(numbers=_BLOCK):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(numbers).add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def own_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def test_freed_blocks_are_taken_again_while_it_lasts_and_given_back_afterwards():
    outside = faults_of_ten_blocks()
    before = own_mb()
    with freed_memory_kept():
        faults_of_ten_blocks()
        inside = faults_of_ten_blocks()
    assert inside < 0.1 * outside
    assert own_mb() < before + 40, "the blocks are the system's again"


def test_blocks_of_a_batch_are_still_taken_again_afterwards():
    with freed_memory_kept():
        pass
    numbers = 2 << 20  # 8 MB, as the hidden states of a batch of captions
    faults_of_ten_blocks(numbers)
    assert faults_of_ten_blocks(numbers) < 2 * numbers * 4 / resource.getpagesize()
