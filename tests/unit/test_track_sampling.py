"""Which regions are armed, and what their count says of the whole."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.track.runs import PAGE_BYTES
from snaplib.track.sampling import REGION_BYTES, SampleCount, sampled_pieces

EIGHTH = Fraction(1, 8)
pages = st.integers(0, 1 << 34).map(lambda page: page * PAGE_BYTES)


def pieces_of(start: int, end: int, sample: Fraction = EIGHTH) -> tuple[tuple[int, int], ...]:
    pieces = sampled_pieces(start, end, sample)
    assert pieces is not None
    return pieces


@given(pages, st.integers(16, 400), st.sampled_from([EIGHTH, Fraction(3, 8), Fraction(1, 5)]))
def test_of_each_whole_group_the_right_number_is_armed(start, regions, sample):
    group_bytes = sample.denominator * REGION_BYTES
    start -= start % group_bytes
    end = start + regions * REGION_BYTES
    counts: dict[int, int] = {}
    for first, after in pieces_of(start, end, sample):
        assert after - first == REGION_BYTES
        counts[first // group_bytes] = counts.get(first // group_bytes, 0) + 1
    whole = range(start // group_bytes, end // group_bytes)
    assert all(counts.get(group, 0) == sample.numerator for group in whole)


@given(pages, pages)
def test_a_region_is_armed_or_not_whatever_is_mapped_around_it(start, size):
    size = size % (1 << 30) + 16 * REGION_BYTES
    around = set(pieces_of(start - start % REGION_BYTES, start + 2 * size))
    for first, after in pieces_of(start, start + size):
        assert start <= first < after <= start + size
        region = first - first % REGION_BYTES
        assert any(left <= region < right for left, right in around)


def test_regions_are_chosen_without_a_pattern():
    places = [first // REGION_BYTES % 8 for first, _ in pieces_of(0, 8 * 4096 * REGION_BYTES)]
    counts = np.bincount(places, minlength=8)
    assert counts.sum() == 4096
    # Six standard deviations of a binomial count with p = 1/8.
    assert abs(counts - 512).max() < 6 * 21.2


def test_small_areas_and_the_whole_are_armed_wholly():
    assert sampled_pieces(0, 8 * REGION_BYTES - PAGE_BYTES, EIGHTH) is None
    assert sampled_pieces(0, 64 * REGION_BYTES, None) is None


def sampled(counts: np.ndarray, sample: Fraction = EIGHTH) -> SampleCount:
    """Count an area whose regions have that many dirty pages each."""
    count = SampleCount()
    count.add_area(len(counts) * REGION_BYTES)
    for first, after in pieces_of(0, len(counts) * REGION_BYTES, sample):
        count.add_piece(after - first, int(counts[first // REGION_BYTES]))
    return count


def test_an_even_load_is_estimated_exactly():
    estimate = sampled(np.full(512, 17)).estimate()
    assert estimate.pages == 512 * 17
    assert estimate.standard_error_pages == 0


def test_the_standard_error_covers_the_truth():
    generator = np.random.default_rng(23)
    within = 0
    for _ in range(200):
        counts = generator.poisson(40, 1024)
        estimate = sampled(counts).estimate()
        within += abs(estimate.pages - counts.sum()) < 2 * estimate.standard_error_pages
    assert 180 <= within <= 200


def test_what_is_certain_is_not_extrapolated():
    count = sampled(np.full(64, 2))
    count.add_certain(100)
    assert count.estimate().pages == 228


def test_an_area_without_a_sampled_region_is_half_of_its_size_give_or_take_the_other():
    count = SampleCount()
    count.add_area(1000 * PAGE_BYTES)
    estimate = count.estimate()
    assert (estimate.pages, estimate.standard_error_pages) == (500, 500)


def test_counts_add_up():
    first, second = sampled(np.full(64, 2)), sampled(np.full(64, 4))
    first.add(second)
    assert first.estimate().pages == pytest.approx(384)
