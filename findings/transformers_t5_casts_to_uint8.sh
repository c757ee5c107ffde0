#!/usr/bin/env bash
# transformers: T5 casts activations to the dtype of a layer's weight, unless that is int8; packed weights of uint8 make
# them integers without a word.
#
# Seen with transformers 5.23.0 and torch 2.13.0 (CPU): the feed-forward block does it before its output projection
# `wo`, for a layer that was kept in float32. A layer that stores the same codes of eight bits as int8 gets float32
# inputs, and the encoder's output is off by 0.004; stored as uint8 it gets uint8 inputs, which lose sign and fraction,
# and the output is off by 0.357. No error, no warning. Mamba and others ask `lm_head.weight.dtype` in the same way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/look.py" <<'PYTHON'
import warnings
warnings.simplefilter("ignore")
import torch
import transformers
from torch import nn
from transformers import T5Config, T5EncoderModel

torch.manual_seed(0)

class Packed(nn.Module):
    """A linear layer that keeps codes of eight bits with a scale for each row, as packed formats do."""

    def __init__(self, dense, dtype):
        super().__init__()
        self.scale = dense.weight.abs().amax(1, keepdim=True) / 127
        codes = torch.round(dense.weight / self.scale)
        self.register_buffer("weight", codes.to(torch.int8) if dtype == torch.int8 else (codes + 128).to(torch.uint8))
        self.shift = 0 if dtype == torch.int8 else 128

    def forward(self, x):
        self.seen = x.dtype
        return x.float() @ ((self.weight.float() - self.shift) * self.scale).T

print("transformers", transformers.__version__)
tokens = torch.arange(2, 34)[None]
for dtype in (torch.int8, torch.uint8):
    torch.manual_seed(0)
    model = T5EncoderModel(T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)).eval()
    with torch.no_grad():
        dense = model(tokens).last_hidden_state
        for block in model.encoder.block:
            layer = block.layer[-1].DenseReluDense
            layer.wo = Packed(layer.wo, dtype)
        packed = model(tokens).last_hidden_state
    error = float((packed - dense).norm() / dense.norm())
    print(f"{str(dtype):12s} input of the layer {str(layer.wo.seen):14s} error of the output {error:.3f}")
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 numpy==2.4.6
found=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/look.py" 2> "$folder/stderr") || { cat "$folder/stderr"; exit 1; }
printf '%s\n' "$found"
expected='transformers 5.23.0
torch.int8   input of the layer torch.float32  error of the output 0.004
torch.uint8  input of the layer torch.uint8    error of the output 0.357'
[ "$found" = "$expected" ] || { echo "the behaviour has changed"; exit 1; }
