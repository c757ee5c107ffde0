#!/usr/bin/env bash
# transformers: a forward pass of RWKV in eval mode changes the model's parameters, and saving it writes the changed ones.
#
# Seen with transformers 5.23.0 and torch 2.13.0 (CPU), 8 blocks and the default `rescale_every=6`: from the sixth block
# on, the output projections of attention and feed-forward are divided by two in place at the first forward pass. Outputs
# of the model at hand are right, since hidden states are halved too. `save_pretrained` writes the halved weights and
# nothing that says so; whoever loads them halves them once more, and the logits are others (relative difference 0.27).
# So a tool that measures activations first and saves afterwards, as calibrated quantization does, writes another model.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/look.py" <<'PYTHON'
import sys, warnings
warnings.simplefilter("ignore")
import torch
import transformers
from transformers import RwkvConfig, RwkvForCausalLM

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.manual_seed(0)
config = RwkvConfig(vocab_size=64, hidden_size=32, attention_hidden_size=32, intermediate_size=64, num_hidden_layers=8, context_length=32)
model = RwkvForCausalLM(config).eval()
tokens = torch.arange(2, 18)[None]
before = {key: value.clone() for key, value in model.state_dict().items()}
with torch.no_grad():
    first = model(tokens).logits
    again = model(tokens).logits
changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
ratios = {float((model.state_dict()[key] / before[key]).nanmedian()) for key in changed}
model.save_pretrained(sys.argv[1])
loaded = RwkvForCausalLM.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    after = loaded(tokens).logits
print("transformers", transformers.__version__)
print("parameters changed by a forward pass in eval mode:", len(changed), "ratios", sorted(ratios))
print("second pass the same:", bool(torch.equal(first, again)))
print("saved and loaded, the same logits:", bool(torch.allclose(after, first, rtol=1e-3, atol=1e-5)), "relative difference %.2f" % float((after-first).norm()/first.norm()))
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 numpy==2.4.6
found=$(HF_HUB_OFFLINE=1 "$folder/venv/bin/python" "$folder/look.py" "$folder/out" 2> "$folder/stderr") || { cat "$folder/stderr"; exit 1; }
printf '%s\n' "$found"
expected='transformers 5.23.0
parameters changed by a forward pass in eval mode: 4 ratios [0.5]
second pass the same: True
saved and loaded, the same logits: False relative difference 0.27'
[ "$found" = "$expected" ] || { echo "the behaviour has changed"; exit 1; }
