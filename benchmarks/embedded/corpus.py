"""Text for the embedded model: reading the novels, cutting excerpts, the tokenizer, packed batches."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers

HELD_OUT = "the-adventures-of-sherlock-holmes"
END_OF_TEXT = "<|endoftext|>"


def read_corpus(folder: Path) -> tuple[dict[str, str], str]:
    """Read the training novels by name, in a fixed order, and the held-out novel."""
    novels = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}
    held_out = novels.pop(HELD_OUT)
    return novels, held_out


def excerpt(text: str, size: int) -> str:
    """Cut whole paragraphs, about `size` bytes of them, from the middle of a text."""
    lines = text.splitlines(keepends=True)
    ends = np.cumsum([len(line.encode()) for line in lines])
    first, last = np.searchsorted(ends, [(ends[-1] - size) / 2, (ends[-1] + size) / 2])
    return "".join(lines[first:last])


def train_tokenizer(novels: dict[str, str], vocabulary: int) -> transformers.PreTrainedTokenizerFast:
    """Train a byte-level BPE, so that any text can be encoded and decoded without loss."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(novels.values(), trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def join(novels: dict[str, str]) -> str:
    """Join the novels to one text, each after an end-of-text token."""
    return "".join(END_OF_TEXT + text for text in novels.values())


def encode(tokenizer: transformers.PreTrainedTokenizerFast, text: str) -> np.ndarray:
    """Encode a long text to token numbers."""
    return np.array(tokenizer.backend_tokenizer.encode(text).ids, dtype=np.int64)


def batches(tokens: np.ndarray, width: int, batch: int, seed: int, first_step: int) -> Iterator[torch.Tensor]:
    """Yield packed batches of `width` tokens a row, for ever.

    The batch of a step depends on the seed and the step only, so a run can resume.
    Every epoch cuts the tokens into windows at a new random offset and visits the windows in a new random order.
    """
    per_epoch = (len(tokens) // width - 1) // batch
    epoch, start = divmod(first_step, per_epoch)
    while True:
        random = np.random.default_rng([seed, epoch])
        windows = tokens[random.integers(width) :]
        windows = windows[: len(windows) // width * width].reshape(-1, width)
        order = random.permutation(len(windows))
        for k in range(start, per_epoch):
            yield torch.from_numpy(windows[order[k * batch : (k + 1) * batch]])
        epoch, start = epoch + 1, 0
