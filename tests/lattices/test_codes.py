"""The two codes: weights, distances, systematic forms."""

import numpy as np

from lattq.kernels import leech24
from lattq.lattices.codes import code_words, golay, information_positions, octets, reed_muller


def weights(generator: np.ndarray) -> dict[int, int]:
    found, counts = np.unique(code_words(generator).sum(axis=1), return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def test_weights():
    assert weights(golay()) == {0: 1, 8: 759, 12: 2576, 16: 759, 24: 1}
    assert weights(reed_muller()) == {0: 1, 8: 30, 16: 1}


def test_systematic_words_are_the_same_code():
    for generator in (golay(), reed_muller()):
        positions, systematic = information_positions(generator)
        np.testing.assert_array_equal(systematic[:, positions], np.eye(len(positions)))
        words, same = ({tuple(word) for word in code_words(g).tolist()} for g in (generator, systematic))
        assert words == same
        assert 0 not in positions  # the leaders' first coordinate is free


def test_tables_of_the_compiled_search_are_these():
    bits = np.arange(8)
    np.testing.assert_array_equal((leech24.OCTETS[:, None] >> bits) & 1, octets())
    positions, systematic = information_positions(golay())
    np.testing.assert_array_equal(leech24.PLACES, positions)
    np.testing.assert_array_equal((leech24.WORDS[:, None] >> np.arange(24)) & 1, systematic)


def test_golay_words_are_three_octets_with_one_glue():
    """The trellis: 8 glues, 8 · 8 choices of the first two inner parts, the third their sum, and 2³ complements."""
    glue, one, other, *ends = np.meshgrid(*[np.arange(8)] * 3, *[np.arange(2)] * 3, indexing="ij")
    index = [16 * glue + 2 * part + end for part, end in zip((one, other, one ^ other), ends, strict=True)]
    built = np.concatenate([octets()[i.ravel()] for i in index], axis=1)
    assert {tuple(word) for word in built.tolist()} == {tuple(word) for word in code_words(golay()).tolist()}
    assert len(np.unique(octets(), axis=0)) == 128
