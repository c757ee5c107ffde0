"""Distillation with codes frozen: what a quantized model still can learn, and how it learns it from the dense one."""
