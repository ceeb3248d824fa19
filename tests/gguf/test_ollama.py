"""The Modelfile says to Ollama what the run says: by a strict parser of its documented grammar."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from chat_families import CHATML, FAMILIES, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from modelfile import parse
from tokenizers_of import MADE, llama3, mistral, qwen2

from trueup.errors import ConfigError
from trueup.export import go_template, ollama

SMOLLM = (  # a system message of its own where the dialogue has none
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def written(folder: Path, tokenizer: Any, system: str | None = None, **options: Any) -> list[tuple[str, str]]:
    (folder / "gguf").mkdir(exist_ok=True)
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(tokenizer.pad_token or tokenizer.eos_token)]
    path = ollama.write(folder / "ollama", folder / "gguf" / "m-Q8_0.gguf", tokenizer, ends, system, **options)
    assert path == folder / "ollama" / "Modelfile"
    return parse(path.read_text(encoding="utf-8"))


def values(parsed: list[tuple[str, str]], name: str) -> list[str]:
    return [value for found, value in parsed if found == name]


@pytest.mark.parametrize("name", MADE)
def test_every_end_token_is_a_stop_and_the_file_is_found(name: str, tmp_path: Path) -> None:
    tokenizer = MADE[name]()
    parsed = written(tmp_path, tokenizer, "Be brief.", temperature=0.7, top_p=0.9)
    ends = {tokenizer.eos_token, tokenizer.pad_token or tokenizer.eos_token}
    assert set(values(parsed, "PARAMETER stop")) == ends
    assert len(values(parsed, "PARAMETER stop")) == len(ends)
    (source,) = values(parsed, "FROM")
    assert (tmp_path / "ollama" / source).resolve() == (tmp_path / "gguf" / "m-Q8_0.gguf").resolve()
    assert source.startswith(".")
    assert values(parsed, "SYSTEM") == ["Be brief."]
    assert values(parsed, "PARAMETER temperature") == ["0.7"]
    assert values(parsed, "PARAMETER top_p") == ["0.9"]
    assert values(parsed, "PARAMETER top_k") == ["0"]


def test_without_a_system_message_or_a_temperature(tmp_path: Path) -> None:
    names = {name for name, _ in written(tmp_path, qwen2())}
    assert names == {"FROM", "TEMPLATE", "PARAMETER stop"}


def go_rendered(template: str, dialogue: list[dict[str, str]]) -> str:
    """What Go's text/template makes of the few actions that are used: {{ if .System }} {{ else }} {{ end }},
    {{ range .Messages }}, {{ if eq .Role "..." }}, {{ else if ... }}, fields, and a quoted text."""
    actions = re.split(r"\{\{ (.*?) \}\}", template)  # text, action, text, action, ..., text
    assert "{{" not in "".join(actions[::2]), "Go would take this text for an action"
    system = "\n\n".join(one["content"] for one in dialogue if one["role"] == "system")

    def block(index: int, scope: dict[str, str], live: bool) -> tuple[str, int]:
        """Up to the action that ends the block; -> (text, that action's index)."""
        out = actions[index - 1] if live else ""
        while index < len(actions):
            action = actions[index]
            if action == "end" or action.startswith("else"):
                return out, index
            if action == "range .Messages":
                made, end = "", index
                for message in dialogue or [{}]:
                    part, end = block(index + 2, message, live)
                    made += part
                index = end
            elif action.startswith("if "):
                made, index = branches(index, scope, live)
            elif action.startswith('"'):
                made = action[1:-1]
            else:
                made = system if action == ".System" else scope[{".Content": "content"}[action]] if live else ""
            index += 2
            out += made + actions[index - 1] if live else ""
        return out, index

    def branches(index: int, scope: dict[str, str], live: bool) -> tuple[str, int]:
        done, made = False, ""
        while True:
            action = actions[index].removeprefix("else").strip()
            if action == "if .System":
                holds = bool(system)
            elif match := re.fullmatch(r'if eq \.Role "(\w+)"', action):
                holds = scope.get("role") == match[1]
            else:
                assert action == "", action
                holds = True
            part, index = block(index + 2, scope, live and holds and not done)
            made, done = made + part, done or holds
            if actions[index] == "end":
                return made, index

    return block(1, {}, True)[0]


HAS_A_TEMPLATE = ["chatml", "zephyr", "zephyr_newer", "gemma", "llama_3"]


@pytest.mark.parametrize("name", HAS_A_TEMPLATE)
def test_the_template_writes_what_the_tokenizers_own_does(name: str, tmp_path: Path) -> None:
    tokenizer = make_tokenizer(FAMILIES[name])
    form = go_template.find(tokenizer, adds_bos=False)
    assert form is not None
    go = go_template.go(form)
    for dialogue in DIALOGUES:
        if dialogue[0]["role"] == "system" and not FAMILIES[name].takes_system:
            continue
        own = tokenizer.apply_chat_template(dialogue, add_generation_prompt=True, tokenize=False)
        assert go_rendered(go, dialogue) == own


DIALOGUES = [
    [{"role": "user", "content": "red?"}],
    [{"role": "system", "content": "Say yes."}, {"role": "user", "content": 'x\n\ny {{ z }} "q"'}],
    [
        {"role": "system", "content": "Say yes."},
        {"role": "user", "content": "red?"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "blue?"},
        {"role": "assistant", "content": "yes,\nso it is"},
        {"role": "user", "content": "why?"},
    ],
]


def test_a_system_message_that_the_template_writes_by_itself() -> None:
    tokenizer = qwen2()
    tokenizer.chat_template = SMOLLM
    form = go_template.find(tokenizer, adds_bos=False)
    assert form is not None
    for dialogue in DIALOGUES:
        own = tokenizer.apply_chat_template(dialogue, add_generation_prompt=True, tokenize=False)
        assert go_rendered(go_template.go(form), dialogue) == own


def test_braces_in_a_template_are_text() -> None:
    tokenizer = qwen2()
    tokenizer.chat_template = CHATML.replace("<|im_start|>", "{{ '{{' }}<|im_start|>")
    form = go_template.find(tokenizer, adds_bos=False)
    assert form is not None
    assert go_rendered(go_template.go(form), DIALOGUES[0]).startswith("{{<|im_start|>user\nred?")


def test_the_beginning_token_is_written_once() -> None:
    tokenizer = llama3()  # the tokenizer puts it before every text, as Ollama then does
    form = go_template.find(tokenizer, adds_bos=True)
    assert form is not None
    own = tokenizer.apply_chat_template(DIALOGUES[0], add_generation_prompt=True, tokenize=False)
    assert "<|begin_of_text|>" + go_rendered(go_template.go(form), DIALOGUES[0]) == own


def test_a_template_without_an_equal_is_left_out(tmp_path: Path) -> None:
    tokenizer = mistral()
    tokenizer.chat_template = (  # the system message goes into the question
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] + '\n\n' %}"
        "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}{% for m in messages %}"
        "{% if m['role'] == 'user' %}[INST] {{ s if loop.last else '' }}{{ m['content'] }} [/INST]"
        "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    assert go_template.find(tokenizer, adds_bos=True) is None
    assert not values(written(tmp_path, tokenizer), "TEMPLATE")
    assert "# No TEMPLATE" in (tmp_path / "ollama" / "Modelfile").read_text()


def test_what_a_template_does_not_do_is_said(tmp_path: Path) -> None:
    tokenizer = qwen2()
    tokenizer.chat_template = FAMILIES["qwen_3"].template
    assert values(written(tmp_path, tokenizer), "TEMPLATE")
    assert ollama.THOUGHTS in (tmp_path / "ollama" / "Modelfile").read_text()
    written(tmp_path, mistral())
    assert ollama.NO_SYSTEM in (tmp_path / "ollama" / "Modelfile").read_text()
    tokenizer = qwen2()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}\n" + CHATML
    written(tmp_path, tokenizer)
    assert ollama.DATE in (tmp_path / "ollama" / "Modelfile").read_text()
    written(tmp_path, qwen2())
    assert "\n#" not in (tmp_path / "ollama" / "Modelfile").read_text()


LINES = st.text(st.sampled_from('a" \t\n\r#{}é🙂'), max_size=12)


@settings(max_examples=300, deadline=None)
@given(LINES, LINES)
def test_any_text_is_read_back_or_refused(system: str, more: str) -> None:
    try:
        quoted = ollama.quoted(system, "data.system")
    except ConfigError as error:
        assert any(line.rstrip().endswith('"""') for line in re.split("[\r\n]", system)[:-1])
        assert 'a line that ends in """' in error.found
        return
    parsed = parse(f"FROM ./m.gguf\nSYSTEM {quoted}\nPARAMETER temperature 0.7\n")
    assert parsed == [("FROM", "./m.gguf"), ("SYSTEM", system), ("PARAMETER temperature", "0.7")]


@pytest.mark.parametrize("text", ['say """\nthen more', "zero\u200bwidth", "no\u00a0break", "bell\a"])
def test_what_a_modelfile_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        ollama.check(text)
