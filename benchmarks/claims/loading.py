"""How long `from_pretrained` takes to decode a model, and how much memory, beside reading the dense file.

    python benchmarks/claims/loading.py

Two models with codes of about three bits: the embedded one, scalar and with a trellis of 256 states, and a random Llama
of 341 million weights, scalar; its blocks hold the same payloads, which decode no faster for it. Every load is that of
a process of its own, on one core or two, which has loaded a model with one block before, so that what is imported,
compiled and tabulated once is not counted. Reading is `safetensors` reading the dense bfloat16 file into memory of the
wanted type; `transformers` maps a dense file of that type and reads nothing yet. Times of the processor are those of
all threads; times of the clock are disturbed by other work on the machine. Each is the least of a few. Memory is the
most that the process held, files that are mapped included, less what it held before.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEED, REPEATS, DTYPES, CORES = 0, 3, ("bfloat16", "float32"), (1, 2)
FAMILIES = {"embedded": ("scalar", "trellis"), "random": ("scalar",), "small": ("scalar", "trellis")}
STEP = math.sqrt(2 * math.pi * math.e) / 2**3  # of weights with variance 1, about three bits
LARGE: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "vocab_size": 32000}
LARGE |= {"num_attention_heads": 16, "num_key_value_heads": 16, "max_position_embeddings": 1024}


def quantized(model: Any, family: str) -> dict[str, bytes]:
    """A payload for each matrix in the blocks; matrices of the same kind share it if there are many blocks."""
    import lattq as lq
    from lattq.llm.source import choose_modules
    from lattq.quantizers.trellis import TrellisQuantizer
    from lattq.quantizers.uniform import UniformQuantizer

    kind = {"scalar": UniformQuantizer, "trellis": TrellisQuantizer}[family]
    plain = lq.quantize(np.eye(2), np.eye(2), lq.Scheme(quantizer=lq.quantizers.Uniform(1.0))).transform
    found, shared = {}, {}
    for name, layer in choose_modules(model).items():
        weight = layer.weight.float().numpy()
        key = name if len(model.model.layers) < 24 else name.split(".", 3)[3]
        if key not in shared:
            quantizer = kind(np.array([[STEP * float(weight.std())]]))
            shared[key] = lq.Quantized(quantizer.encode(weight), quantizer, plain, quantizer.coder).payload
        found[name] = shared[key]
    return found


def build(folder: Path) -> None:
    """Dense and quantized directories of both models, and of one with a single block."""
    import torch
    import transformers

    from lattq.llm import embedded_model
    from lattq.llm.run import attach
    from lattq.llm.source import choose_modules, load_model

    torch.manual_seed(SEED)
    small: dict[str, Any] = LARGE | {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "vocab_size": 256,
    }
    small |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    for name, families in FAMILIES.items():
        for family in families:
            if name == "embedded":
                model: Any = load_model(embedded_model())
            else:
                sizes: dict[str, Any] = LARGE if name == "random" else small
                config = transformers.LlamaConfig(**sizes, tie_word_embeddings=True)
                model = torch.nn.Module.to(transformers.LlamaForCausalLM(config), torch.bfloat16)
            if family == families[0]:
                model.save_pretrained(folder / name / "dense")
            payloads = quantized(model, family)
            attach(model, choose_modules(model), payloads, run="0" * 16)
            model.save_pretrained(folder / name / family)


def resident(key: str) -> int:
    """Bytes that the process holds, or held at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


def least(run: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds of the clock and of the processor, and bytes that the first run added at most; and what a run returns."""
    times, before = [], resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # what was held at most begins anew
    most, kept = 0, None
    for _ in range(REPEATS):
        del kept
        clock, processor = time.perf_counter(), time.process_time()
        kept = run()
        times.append((time.perf_counter() - clock, time.process_time() - processor))
        most = most or resident("VmHWM") - before
    clock, processor = (min(column) for column in zip(*times, strict=True))
    return {"seconds": clock, "processor": processor, "memory": most}, kept


def loads(folder: Path, name: str, what: str, dtype: str, cores: int) -> dict[str, float]:
    """Figures of this process: it loads a directory, or reads the dense file."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import safetensors.torch
    import torch
    import transformers

    import lattq.llm  # noqa: F401, teaches `transformers` the method

    torch.set_num_threads(cores)
    transformers.utils.logging.disable_progress_bar()
    wanted = getattr(torch, dtype)

    def load(name: str) -> Any:
        if what == "read":
            found = safetensors.torch.load_file(folder / name / "dense" / "model.safetensors")
            return {key: one.to(wanted, copy=True) for key, one in found.items()}
        return transformers.AutoModelForCausalLM.from_pretrained(folder / name / what, dtype=wanted)

    load("small")
    figures, model = least(lambda: load(name))
    if what != "read":
        figures |= {"dense": model.get_memory_footprint(), "weights": model.num_parameters()}
        figures["file"] = (folder / name / what / "model.safetensors").stat().st_size
    return figures


def of_process(*arguments: Any) -> dict[str, Any]:
    """Figures that a process of its own prints."""
    command = [sys.executable, __file__, *map(str, arguments)]
    settings = {"OMP_NUM_THREADS": str(arguments[-1]), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Build, measure, publish."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from harness import publish

    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        build(folder)
        for name in ("embedded", "random"):
            for dtype in DTYPES:
                for cores in CORES:
                    reading = of_process(folder, name, "read", dtype, cores)
                    for what in ("dense", *FAMILIES[name]):
                        found = of_process(folder, name, what, dtype, cores)
                        row = {"model": name, "what": what, "dtype": dtype, "cores": cores, **found}
                        row |= {f"read {key}": reading[key] for key in ("seconds", "processor")}
                        row["ratio"] = found["processor"] / reading["processor"]
                        row["bound"] = 1.1 * found["dense"] + found["file"]
                        rows.append(row)
                        print(json.dumps(row), flush=True)
    coded = [row for row in rows if row["what"] != "dense"]
    large = [row for row in coded if row["model"] == "random"]
    pairs = [
        (one["seconds"], two["seconds"])
        for one in large
        for two in large
        if (one["what"], one["dtype"], one["cores"], two["cores"]) == (two["what"], two["dtype"], 1, 2)
    ]
    claims = {
        "a load holds at most 1.1 of the dense model and its files": all(
            row["memory"] <= row["bound"] for row in coded
        ),
        "a loaded model has the parameters and the footprint of a dense one": all(
            (row["weights"], row["dense"]) == (other["weights"], other["dense"])
            for row in coded
            for other in rows
            if other["what"] == "dense" and all(other[key] == row[key] for key in ("model", "dtype", "cores"))
        ),
    }
    publish("loading", seed=SEED, claims=claims, rows=rows, two_cores=[one / two for one, two in pairs])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        place, name, what, dtype, cores = sys.argv[1:]
        print(json.dumps(loads(Path(place), name, what, dtype, int(cores))))
    else:
        main()
