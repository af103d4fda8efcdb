"""Ids identical to Hugging Face's tokenizers on more than 1 MB of varied text."""
import json
import pathlib
import random

import pytest
import tokenizers

import tiny
import tiny_encoders

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


def decoder_tokenizer(kind):
    """A byte-level BPE, untrained, and how it is trained."""
    config = tiny.tokenizer_json()
    if kind == "gpt2":
        config["pre_tokenizer"] = config["pre_tokenizer"]["pretokenizers"][1]
        config["normalizer"] = None
    if kind in SPLITS:
        split = dict(type="Split", pattern=dict(Regex=SPLITS[kind]), behavior="Isolated", invert=False)
        level = dict(config["decoder"], use_regex=False)
        config["pre_tokenizer"]["pretokenizers"] = [split, level]
    return config, dict(initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
                        special_tokens=["<|bos|>", "<|end|>", "<|start|>"])


BYTES = [f"<0x{b:02X}>" for b in range(256)]


def character_tokenizer():
    """SentencePiece's, as Gemma has it: blanks are a character, and others fall back to bytes."""
    tokens = ["<pad>", "<eos>", "<bos>", *BYTES]
    special = [dict(id=i, content=tokens[i], single_word=False, lstrip=False, rstrip=False, normalized=False,
                    special=True) for i in range(3)]
    blank = dict(type="Replace", pattern=dict(String=" "), content="\u2581")
    split = dict(type="Split", pattern=dict(String=" "), behavior="MergedWithPrevious", invert=False)
    config = dict(version="1.0", truncation=None, padding=None, added_tokens=special, normalizer=blank,
                  pre_tokenizer=split, post_processor=None, decoder=None,
                  model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None,
                             end_of_word_suffix=None, fuse_unk=True, byte_fallback=True, ignore_merges=False,
                             vocab={t: i for i, t in enumerate(tokens)}, merges=[]))
    return config, dict(special_tokens=tokens, limit_alphabet=300, max_token_length=12)


# Later than the Unicode 8 that BERT's normalizer goes by in that library.
LATER = {0x61D, *range(0x1E944, 0x1E94B), 0x1E95E, 0x1E95F, *range(0x2E43, 0x2E5E), *range(0x1F54F, 0x1F550)}


def first_difference(own, expected, reference):
    at = next(i for i, (a, b) in enumerate(zip(own + [-1], expected + [-1])) if a != b)
    name = reference.id_to_token
    return f"id {at}: {[name(t) for t in own[at - 3:at + 5]]} instead of {[name(t) for t in expected[at - 3:at + 5]]}"


@pytest.mark.parametrize("kind", ["smollm", "gpt2", "qwen2", "llama3", "clip", "characters", "wordpiece"])
def test_identical_ids(isthmus, tmp_path, kind):
    text = varied_text()
    assert len(text.encode()) > 1_000_000
    # A trained vocabulary, so that words merge many times over.
    trainers = tokenizers.trainers
    if kind == "wordpiece":
        text = "".join(c for c in text if ord(c) not in LATER)
        config, options = tiny_encoders.wordpiece_json(), dict(special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
        trainer = trainers.WordPieceTrainer(vocab_size=3000, show_progress=False, **options)
    elif kind == "clip":
        config = tiny_encoders.clip_json()
        trainer = trainers.BpeTrainer(vocab_size=3000, show_progress=False, end_of_word_suffix="</w>",
                                      special_tokens=["<|start|>", "<|end|>"],
                                      initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    else:
        config, options = character_tokenizer() if kind == "characters" else decoder_tokenizer(kind)
        trainer = trainers.BpeTrainer(vocab_size=3000, show_progress=False, **options)
    reference = tokenizers.Tokenizer.from_str(json.dumps(config))
    reference.train_from_iterator([text[:300_000]], trainer)
    saved = json.loads(reference.to_str())
    if kind == "characters":  # bytes are tokens of the vocabulary, not of the text
        saved["added_tokens"] = saved["added_tokens"][:3]
        reference = tokenizers.Tokenizer.from_str(json.dumps(saved))
    tiny.write_folder(tmp_path / "m", "llama")
    (tmp_path / "m/tokenizer.json").write_text(json.dumps(saved))
    isthmus("compile", tmp_path / "m", "--weights", "int8", "-o", tmp_path / "m.isth")
    (tmp_path / "text").write_bytes(text.encode())
    own = json.loads(isthmus("tokenize", tmp_path / "m.isth", tmp_path / "text"))
    expected = reference.encode(text, add_special_tokens=False).ids
    assert own == expected, first_difference(own, expected, reference)


def test_sentencepiece_in_gguf(isthmus, tmp_path):
    """Scores instead of merges: whatever makes the best token is joined."""
    text = varied_text()[:200_000].replace("<|", "")
    config, options = character_tokenizer()
    trained = tokenizers.Tokenizer.from_str(json.dumps(config))
    options |= dict(limit_alphabet=80)  # all within the checkpoint's 512 tokens
    trained.train_from_iterator([text], tokenizers.trainers.BpeTrainer(vocab_size=500, show_progress=False, **options))
    model = json.loads(trained.to_str())["model"]
    ids = model["vocab"]
    tokens = sorted(ids, key=ids.get)
    plain = set(tokens[3 + 256:])
    model["merges"] = [[t[:i], t[i:]] for t in tokens for i in range(1, len(t)) if {t, t[:i], t[i:]} <= plain]
    config |= dict(model=model, pre_tokenizer=None)
    reference = tokenizers.Tokenizer.from_str(json.dumps(config))
    types = [3] * 3 + [6] * 256 + [1] * len(plain)
    tiny.write_gguf(tmp_path / "m.gguf", "llama", sentence_piece=(tokens, types))
    isthmus("compile", tmp_path / "m.gguf", "--weights", "int8", "-o", tmp_path / "m.isth")
    (tmp_path / "text").write_bytes(text.encode())
    own = json.loads(isthmus("tokenize", tmp_path / "m.isth", tmp_path / "text"))
    expected = reference.encode(text, add_special_tokens=False).ids
    assert own == expected, first_difference(own, expected, reference)
