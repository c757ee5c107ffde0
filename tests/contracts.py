"""The contract suites of `lattq.testing`, and what designs of groups have to obey beside."""

from typing import Any

import numpy as np

from lattq.quantizers import Entries
from lattq.quantizers.groups import join
from lattq.testing.contracts import CoderContract, QuantizerContract, TransformContract, law, stream_bits
from tests.helpers import assert_same

__all__ = ["CoderContract", "QuantizerContract", "TransformContract", "law", "stored_parts", "stream_bits"]


def stored_parts(kind: Any, targets: np.ndarray) -> tuple[np.ndarray, Any, Any, list[np.ndarray]]:
    """Codes of all groups, the quantizer joined from theirs, the one restored from its state, and each group decoded.

    What is restored decodes to the same bits, and has the same state.
    """
    rows, columns = targets.shape
    width = kind.group or columns
    spans = [np.arange(lo, min(lo + width, columns)) for lo in range(0, columns, width)]
    parts = [kind(Entries(targets[:, span], span)) for span in spans]
    codes = np.concatenate([part.encode(targets[:, span]) for part, span in zip(parts, spans, strict=True)], axis=1)
    whole = join(parts, width, (rows, columns))
    restored = type(parts[0]).from_state(whole.to_state(), (rows, columns))
    assert_same(restored.decode(codes), whole.decode(codes))
    assert restored.to_state() == whole.to_state()
    return codes, whole, restored, [p.decode(codes[:, span]) for p, span in zip(parts, spans, strict=True)]
