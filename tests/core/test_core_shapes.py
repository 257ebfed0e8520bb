"""Rounded sizes: a little more, few different ones, and only where shapes cost something."""

from fledge.core.machine import bf16_instructions
from fledge.core.shapes import round_up


def test_rounding_adds_a_sixteenth_at_most_and_leaves_few_sizes() -> None:
    sizes = [round_up(count) for count in range(1, 5000)]
    assert all(count <= size <= count * 17 / 16 for count, size in enumerate(sizes, 1))
    assert sizes == sorted(sizes)
    assert [round_up(size) for size in sizes] == sizes
    if bf16_instructions():
        assert len({size for size in sizes if size > 1000}) < 45


def test_small_sizes_and_other_devices_are_left_alone() -> None:
    assert [round_up(count) for count in range(33)] == list(range(33))
    assert [round_up(count, "cuda:0") for count in (1000, 2049)] == [1000, 2049]
