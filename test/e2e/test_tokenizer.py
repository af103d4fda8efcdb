"""Ids identical to Hugging Face's tokenizers on more than 1 MB of varied text."""
import json
import pathlib
import random

import pytest
import tokenizers

import tiny

ROOT = pathlib.Path(__file__).resolve().parents[2]


def varied_text():
    """Code, documents, digits, odd spaces, emoji and many scripts, mixed."""
    generator = random.Random(1)
    files = sorted(p for kind in ("*.md", "*.cpp", "*.py", "*.td", "*.mlir") for p in ROOT.glob(f"[!b]*/**/{kind}"))
    parts = [p.read_text() for p in files]
    blocks = [(0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF),
              (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x2000, 0x206F), (0x2190, 0x22FF),
              (0x2E80, 0x2FFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFB00, 0xFB4F),
              (0x1F300, 0x1F64F), (0x1F900, 0x1F9FF), (0x1E900, 0x1E95F), (0x20000, 0x2A6DF)]
    words = ["don't", "I'll", "we've", " the", "abc", "12", "3.14159", "\n\n", "\t", "   ", " ", "\u3000", "\u180e",
             "\u200d", "\x85", "\r\n", "👩‍👩‍👧‍👦", "🏳️‍🌈", "é", "e\u0301", "Å", "ﬁ", "½", "Ⅷ", "٣", "<|end|>", "<|bos|>", "<|e"]
    size = sum(map(len, parts))
    while size < 1_200_000:
        first, last = generator.choice(blocks)
        run = "".join(chr(generator.randint(first, last)) for _ in range(generator.randint(1, 12)))
        parts.append(run + generator.choice(words) + " " * generator.randint(0, 3))
        size += len(parts[-1])
    generator.shuffle(parts)
    return "".join(parts)


# As the models of the supported families have them (see lib/Import/TokenizerJson.cpp).
SPLITS = {
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"}


@pytest.mark.parametrize("kind", ["smollm", "gpt2", "qwen2", "llama3"])
def test_identical_ids(isthmus, tmp_path, kind):
    text = varied_text()
    assert len(text.encode()) > 1_000_000
    config = tiny.tokenizer_json()
    if kind == "gpt2":
        config["pre_tokenizer"] = config["pre_tokenizer"]["pretokenizers"][1]
        config["normalizer"] = None
    if kind in SPLITS:
        split = dict(type="Split", pattern=dict(Regex=SPLITS[kind]), behavior="Isolated", invert=False)
        level = dict(config["decoder"], use_regex=False)
        config["pre_tokenizer"]["pretokenizers"] = [split, level]
    # A trained vocabulary, so that words merge many times over.
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=3000, show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
                                             special_tokens=["<|bos|>", "<|end|>", "<|start|>"])
    reference = tokenizers.Tokenizer.from_str(json.dumps(config))
    reference.train_from_iterator([text[:300_000]], trainer)
    saved = json.loads(reference.to_str())
    tiny.write_folder(tmp_path / "m", "llama")
    (tmp_path / "m/tokenizer.json").write_text(json.dumps(saved))
    isthmus("compile", tmp_path / "m", "--weights", "int8", "-o", tmp_path / "m.isth")
    (tmp_path / "text").write_bytes(text.encode())
    own = json.loads(isthmus("tokenize", tmp_path / "m.isth", tmp_path / "text"))
    expected = reference.encode(text).ids
    if own != expected:
        at = next(i for i, (a, b) in enumerate(zip(own, expected)) if a != b)
        raise AssertionError(f"id {at}: {[reference.id_to_token(t) for t in own[at - 3:at + 5]]} instead of "
                             f"{[reference.id_to_token(t) for t in expected[at - 3:at + 5]]}")
