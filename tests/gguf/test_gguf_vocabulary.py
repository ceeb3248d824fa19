"""llama.cpp makes the same tokens of texts and of dialogues as the tokenizer that was exported."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from reading import llama_cpp, save
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers_of import MADE, TEXTS, gpt2, llama2, llama3, mistral, qwen2
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trueup.errors import ModelError
from trueup.export import gguf, go_template

DIALOGUES_ONLY = ("llama 2",)  # a space before the first text only, which llama.cpp does not know


def vocabulary(folder: Path, tokenizer: Any, name: str) -> Any:
    """llama.cpp's vocabulary of a GGUF file made of a model with this tokenizer."""
    module = llama_cpp()
    made = gguf.write(save(folder, "llama", tokenizer), folder / "gguf", ["f16"], name)
    return module.Llama(str(made["f16"]), vocab_only=True, verbose=False)


def ids_of_dialogue(model: Any, messages: list[dict[str, str]]) -> list[int]:
    """The ids that llama-cpp-python makes of a dialogue by the template in the file."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    text = {key: model._model.token_get_text(getattr(model, f"token_{key}")()) for key in ("eos", "bos")}
    formatter = Jinja2ChatFormatter(model.metadata["tokenizer.chat_template"], text["eos"], text["bos"])
    made = formatter(messages=messages)
    return list(model.tokenize(made.prompt.encode(), add_bos=not made.added_special, special=True))


@pytest.mark.parametrize("name", MADE)
def test_the_same_tokens(name: str, tmp_path: Path) -> None:
    model = vocabulary(tmp_path, MADE[name](), name)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)  # as it was saved
    for text in [] if name in DIALOGUES_ONLY else TEXTS:
        composed = unicodedata.normalize("NFC", text) if name == "qwen 2" else text
        assert model.tokenize(composed.encode(), add_bos=True, special=True) == tokenizer(composed).input_ids, text
    for dialogue in go_template.DIALOGUES:
        if name in ("gemma", "llama 2", "mistral") and dialogue[0]["role"] == "system":
            continue  # their templates take none
        ids = tokenizer.apply_chat_template(dialogue, add_generation_prompt=True, return_dict=False)
        assert ids_of_dialogue(model, dialogue) == ids


def test_every_end_token_ends_a_generation(tmp_path: Path) -> None:
    module = llama_cpp()
    tokenizer = llama3()
    folder = save(tmp_path, "llama", tokenizer)
    ends = tokenizer.convert_tokens_to_ids(["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"])
    # a name that llama.cpp does not know as an end by itself
    tokenizer.add_special_tokens({"additional_special_tokens": ["<finis>"]})
    finis = tokenizer.convert_tokens_to_ids("<finis>")
    tokenizer.save_pretrained(folder)
    for named in (ends, [ends[0], finis]):
        (folder / "generation_config.json").write_text('{"eos_token_id": %s}' % named)  # noqa: UP031
        made = gguf.write(folder, tmp_path / "gguf", ["f16"], "ends")
        model = module.Llama(str(made["f16"]), vocab_only=True, verbose=False)
        assert all(module.llama_vocab_is_eog(model._model.vocab, token) for token in named)
        assert model.token_eos() == ends[0]
        assert not module.llama_vocab_is_eog(model._model.vocab, tokenizer.convert_tokens_to_ids("<|start_header_id|>"))


class TestRefused:
    """By name, before anything is written."""

    def fault(self, folder: Path, tokenizer: Any, **options: Any) -> str:
        with pytest.raises(ModelError) as caught:
            gguf.write(save(folder, "llama", tokenizer, **options), folder / "gguf", ["f16"], "none")
        assert not (folder / "gguf").exists()
        return caught.value.found

    def test_another_way_of_splitting(self, tmp_path: Path) -> None:
        tokenizer = gpt2()
        tokenizer._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        assert "splits texts by Punctuation, ByteLevel in a way" in self.fault(tmp_path, tokenizer)

    def test_another_kind_of_model(self, tmp_path: Path) -> None:
        raw = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2}, unk_token="<unk>"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>")
        assert "type WordLevel" in self.fault(tmp_path, tokenizer)

    def test_merges_that_are_no_sentencepiece_models(self, tmp_path: Path) -> None:
        import json

        tokenizer = mistral()
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        del state["model"]["merges"][3]
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
        assert "1 pairs make a piece but are no merge" in self.fault(tmp_path, tokenizer)

    def test_a_space_before_the_first_text_only(self, tmp_path: Path) -> None:
        tokenizer = llama2(legacy=False)
        tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
        assert "llama.cpp does not (it knows always and never)" in self.fault(tmp_path, tokenizer)

    def test_tokens_that_take_white_space(self, tmp_path: Path) -> None:
        from tokenizers import AddedToken

        tokenizer = qwen2()
        tokenizer.add_tokens([AddedToken("<mask>", lstrip=True)])
        assert "added tokens with lstrip: <mask>" in self.fault(tmp_path, tokenizer)

    def test_four_end_tokens(self) -> None:
        from transformers import LlamaConfig

        with pytest.raises(ModelError, match="4 end tokens, for which GGUF has 3 keys"):
            gguf.check(LlamaConfig(), llama3(), ["f16"], [1, 2, 3, 4])
