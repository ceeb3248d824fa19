"""Small tokenizers that split, normalize and merge as those of well-known families do; each trained here."""

from __future__ import annotations

import json
from typing import Any

from chat_families import CHATML, GEMMA, LLAMA_2, LLAMA_3
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import GemmaTokenizer, LlamaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

CORPUS = [
    "The red tent stands near the green boot; it's the rope's fault, they'll say. I'VE seen 12345 of them in 2024!",
    "Was kostet das Zelt? Größe, Straße, übrig. Où est la tente ? C'est déjà l'été.",
    "Я вижу палатку. 我想买帐篷。テントを買う。",
    "def f(x):\n    return x ** 2  # twice\n\n\n\tif x != 3:\n        print(f'{x:.2f}')\r\n",
    "<b>bold</b> & more... ------ ====== 3.14 1,000,000 ½ ² Ⅷ 😀👍🏽 naïve café e\u0301",
]
# What is compared: contractions, digits, line ends, scripts, marks, spaces before and after
UNMERGED = "xylograph"
TEXTS = [
    *CORPUS,
    f"{UNMERGED}!",
    "Hello",
    " Hello",
    "  two  spaces ",
    "a\nb\n\nc\n \n  d\t\te",
    "x\r\ny\r\n\r\nz",
    "it's IT'S they'Re we'LL 'tis o'clock rock'n'roll",
    "7 42 365 1000 31337 123456789 3.50€ 10%",
    "don't!!! stop??? (really) [now] {here} <tag/> a_b-c+d=e",
    "ünïcödé ÀÉÎ ЩЪ ελληνικά עברית العربية हिन्दी ไทย 한국어 中文字符",
    "🙂🚀 👩‍👩‍👧 ❤️ \u200b zero\u00a0width ﬁ ﬂ ™ ©",
    "....... !?!? --- ``` ''' \"\"\"",
    "user\nassistant\n",
    "",
]
THREE_DIGITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
IM = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def _bpe(splitter: Any, special: list[str], *, ignore_merges: bool = False) -> Tokenizer:
    """Byte-level BPE trained on unsplit texts: its merges go over words, numbers and lines, so that what `splitter`
    keeps apart shows in the tokens. One token of the vocabulary is made by no merge; ignore_merges finds it."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [text for text in TEXTS if UNMERGED not in text] * 3,
        trainers.BpeTrainer(vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    state = json.loads(raw.to_str())
    assert UNMERGED not in state["model"]["vocab"]
    state["model"]["vocab"][UNMERGED] = len(state["model"]["vocab"])
    state["model"]["ignore_merges"] = ignore_merges
    raw = Tokenizer.from_str(json.dumps(state))
    raw.pre_tokenizer = splitter
    raw.decoder = decoders.ByteLevel()
    return raw


def gpt2() -> Any:
    raw = _bpe(pre_tokenizers.ByteLevel(add_prefix_space=False), [*IM.values()])
    return _named(PreTrainedTokenizerFast(tokenizer_object=raw, **IM), CHATML)


def smollm() -> Any:
    digits = pre_tokenizers.Digits(individual_digits=True)
    splitter = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return _named(PreTrainedTokenizerFast(tokenizer_object=_bpe(splitter, [*IM.values()]), **IM), CHATML)


def _split(regex: str) -> Any:
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"), level])


def llama3(*, ignore_merges: bool = True) -> Any:
    """With a beginning token before every text, as the post-processor of Llama 3 has it."""
    special = ["<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"]
    special += ["<|start_header_id|>", "<|end_header_id|>"]
    raw = _bpe(_split(THREE_DIGITS), special, ignore_merges=ignore_merges)
    raw.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]),
        ]
    )
    named = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|end_of_text|>"
    )
    return _named(named, LLAMA_3)


def phi4() -> Any:
    """Llama 3's way of splitting, without its ignore_merges."""
    return llama3(ignore_merges=False)


def qwen2() -> Any:
    trained = json.loads(_bpe(_split(THREE_DIGITS.replace("{1,3}", "")), [*IM.values()]).to_str())["model"]
    merges = [tuple(pair) for pair in trained["merges"]]
    made = Qwen2Tokenizer(vocab=trained["vocab"], merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.add_tokens(["<think>", "</think>"])
    return _named(made, CHATML)


def pieces(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(vocabulary, merges) as a SentencePiece model becomes them: pieces in the order of their scores, and a merge for
    every two pieces that make a third, in that order."""
    raw = Tokenizer(models.BPE())
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+"), "isolated")
    raw.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=420, show_progress=False))
    order = sorted(raw.get_vocab(), key=raw.get_vocab().__getitem__)
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(order, key=len, reverse=False)]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(names))}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in order
        if len(piece) > 1
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    return vocab, merges


def gemma() -> Any:
    vocab, merges = pieces(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"])
    made = GemmaTokenizer(vocab=vocab, merges=merges, eos_token="<end_of_turn>")
    made.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<eos>"]})
    made.add_tokens([AddedToken("▁▁", normalized=False), AddedToken("\n\n", normalized=False)])
    made._tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return _named(made, GEMMA)


def llama2(*, legacy: bool = True) -> Any:
    """`legacy`: a space before every text between special tokens; else before the first only."""
    vocab, merges = pieces(["<unk>", "<s>", "</s>"])
    made = LlamaTokenizer(vocab=vocab, merges=merges, legacy=legacy)
    return _named(made, LLAMA_2)


def mistral() -> Any:
    """As Mistral's tokenizer.json has it: the space is put before by a normalizer."""
    vocab, merges = pieces(["<unk>", "<s>", "</s>"])
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    named = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return _named(named, LLAMA_2)


def phi3() -> Any:
    """Special tokens that take the white space after them."""
    vocab, merges = pieces(["<unk>", "<s>", "</s>"])
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.add_special_tokens([AddedToken("<unk>"), AddedToken("<s>"), AddedToken("</s>", rstrip=True)])
    turns = ("<|assistant|>", "<|end|>", "<|user|>", "<|system|>")
    raw.add_special_tokens([AddedToken("<|endoftext|>"), *(AddedToken(turn, rstrip=True) for turn in turns)])
    named = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="<|end|>", pad_token="<|endoftext|>", unk_token="<unk>"
    )
    return _named(
        named,
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    )


def _named(tokenizer: Any, template: str) -> Any:
    tokenizer.chat_template = template
    return tokenizer


MADE = {
    "gpt-2": gpt2,
    "smollm": smollm,
    "llama 3": llama3,
    "phi 4": phi4,
    "qwen 2": qwen2,
    "gemma": gemma,
    "llama 2": llama2,
    "mistral": mistral,
    "phi 3": phi3,
}
