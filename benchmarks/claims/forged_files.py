"""What forged and damaged files do to a reader: only `LattqError`, or a value, in bounded time and memory.

    python benchmarks/claims/forged_files.py [CASES [JOBS]]

Every case is a file of one of lattq's recipes, on one of a few shapes, with bytes altered, or with parts of its state
replaced and the hash made right again. Half of the cases are read with the shape that their layer has, half without.
A file that is read decodes to finite numbers, or `dequantize` says that they do not fit; and it is a file like any
other: stored again it decodes to the same numbers. Memory is what Python and NumPy allocate at once beyond what there
was (`tracemalloc`), under a limit of the address space that an allocation outside of them would hit.
"""

import collections
import dataclasses
import resource
import sys
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from harness import each, publish

import lattq as lq
from lattq._payload import MOST_WEIGHTS
from tests.forgery import Case, cases, huge, warm

SEED, CASES, CHUNK = 0, 200_000, 2_500
SECONDS, FACTOR = 1.0, 100
CALL = 1 << 18  # bytes that any call takes, however small its file: Python's own, and the reader of messages
ADDRESSES = 1 << 31


def read(case: Case, *, decode: bool = True) -> tuple[str, Any, float, int]:
    """Outcome of reading and decoding a file, what was read, seconds and bytes."""
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.process_time()
    found = None
    try:
        found = (lq.Quantized.from_bytes if case.whole else lq.Quantized.from_payload)(case.blob, case.shape)
        values = found.dequantize(np.float64) if decode else found.codes
        outcome = "decoded" if np.isfinite(values).all() else "not finite"
    except lq.errors.DamagedFileError:  # codes that are decoded only now, too
        outcome, found = "refused", None
    except lq.errors.LattqError:
        outcome = "refused" if found is None else "beyond float64"
    except BaseException as error:
        outcome = f"raised {type(error).__name__}"
    return outcome, found, time.process_time() - start, tracemalloc.get_traced_memory()[1] - before


def stored_again(found: lq.Quantized) -> str:
    """Whether a value that was read comes back from bytes of its own."""
    try:
        payload = dataclasses.replace(found).payload
        if payload == found.payload:
            return "decoded, the same bytes"
        again = lq.Quantized.from_payload(payload, found.shape)
        same = np.array_equal(again.dequantize(np.float64), found.dequantize(np.float64))
    except BaseException as error:
        return f"stored again raised {type(error).__name__}"
    return "decoded, the same value" if same else "stored again differs"


def budget(case: Case, found: Any) -> int:
    """Bytes that a case may take: by its length and the shape to expect, or the shape that it was allowed to have."""
    rows, columns = case.shape or (found.shape if found is not None else claimed(case.blob))
    return FACTOR * max(len(case.blob), 4 * min(rows * columns, MOST_WEIGHTS))


def claimed(blob: bytes) -> tuple[int, int]:
    """The shape that a refused payload gives itself."""
    try:
        rows, columns = msgpack.unpackb(blob[:-8])[1]
        return max(int(rows), 1), max(int(columns), 1)
    except (ValueError, TypeError, LookupError, OverflowError, msgpack.UnpackException):
        return 1, 1


def chunk(seed: int, start: int, stop: int) -> dict[str, Any]:
    """Counts of outcomes, and the worst of time and memory, of some cases."""
    warnings.simplefilter("error")
    files = warm()
    tracemalloc.start()
    found = summary(cases(files, seed, start, stop))
    print(start, stop, found, flush=True)
    return found


def summary(tried: Any, *, decode: bool = True) -> dict[str, Any]:
    """Outcomes of cases."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, hard))
    found: dict[str, Any] = {"outcomes": collections.Counter(), "seconds": 0.0, "over": 0.0, "bytes": 0, "bad": []}
    try:
        for case in tried:
            outcome, value, seconds, size = read(case, decode=decode)
            share = max(size - CALL, 0) / budget(case, value)
            if outcome == "decoded" and decode:
                outcome = stored_again(value)
            found["outcomes"][f"{case.kind}, {'with' if case.shape else 'without'} a shape: {outcome}"] += 1
            if not outcome.startswith(("refused", "beyond", "decoded")) or share > 1 or seconds > SECONDS:
                found["bad"].append([case.index, case.kind, case.name, outcome, seconds, size])
            found["seconds"], found["over"] = max(found["seconds"], seconds), max(found["over"], share)
            found["bytes"] = max(found["bytes"], size)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return found


def large() -> dict[str, Any]:
    """The largest shapes that a file without a shape to expect may have, and those beyond."""
    warnings.simplefilter("error")
    warm()
    tracemalloc.start()
    return summary(huge(), decode=False)


def merged(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The sum of counts, and the worst of the rest."""
    outcomes = sum((part["outcomes"] for part in parts), collections.Counter())
    worst = {key: max(part[key] for part in parts) for key in ("seconds", "over", "bytes")}
    return {"outcomes": dict(sorted(outcomes.items())), **worst, "bad": [bad for part in parts for bad in part["bad"]]}


def main() -> None:
    """Try all cases, and the largest shapes."""
    count, jobs = (int(sys.argv[1]) if len(sys.argv) > 1 else CASES), (int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    work = [(SEED, start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    found = merged(each(jobs, chunk, work))
    most = merged(each(1, large, [()]))
    raw = [bad for bad in found["bad"] if not bad[3].startswith(("refused", "beyond", "decoded"))]
    print(found, most, sep="\n")
    publish(
        "forged_files",
        seed=SEED,
        claims={
            f"{count} files: only `LattqError`, or a value that comes back from bytes of its own": not raw,
            f"no file takes more than {SECONDS:g} s of a processor to read and decode": found["seconds"] <= SECONDS,
            f"none takes more than {CALL >> 10} KiB and {FACTOR} × max(its size, 4 bytes × weights)": found["over"]
            <= 1,
            "short files of the largest shapes, without one to expect: refused, or read within the same bounds": (
                most["seconds"] <= SECONDS and not most["bad"]
            ),
        },
        cases=count,
        found=found,
        largest=most,
    )


if __name__ == "__main__":
    main()
