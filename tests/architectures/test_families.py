"""Every family gives plain transformers' losses, log-probabilities, LoRA gradients and greedy completions.

Doors open: fp32, so that a bug stands out from rounding. Doors shut (TRUEUP_CPU=portable): bf16, the path of a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CASES, Case, tokenizer
from reference import COMPLETIONS, NEW_TOKENS, PROMPTS, Expected, expected
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from trueup import cpu
from trueup.chat.batch import pad
from trueup.cpu import precision
from trueup.decoding.batching import complete
from trueup.errors import ModelError
from trueup.export import merging
from trueup.gpu import llama
from trueup.gpu.decoder import Decoder
from trueup.models import adapters, base, causal, head, scoring
from trueup.run.run_file import AdapterConfig
from trueup.sampling.sample import engine
from trueup.sampling.types import Sampling
from trueup.training import head as training_head

KNOWN = [case for case in CASES if not case.refused]
REFUSED = [case for case in CASES if case.refused]
ROUNDING = {"open": 1e-3, "shut": 0.01}  # of gradients, relative
NATS = {"open": 2e-3, "shut": 0.2}  # fp32 sums in another order; bf16 keeps 8 bits


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @functools.cache
    def folder(case: Case) -> Path:
        return case.build(tmp_path_factory.mktemp("model"))

    return folder


@pytest.fixture(scope="module")
def references(folders: Any) -> Any:
    @functools.cache
    def reference(case: Case, four_bit: bool) -> Expected:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRUEUP_CPU", "portable")
            model = policy(folders(case), four_bit)
        lora = {name: p.data for name, p in model.named_parameters() if "lora_" in name}
        return expected(folders(case), model.unload(), lora, model.peft_config["default"])

    return reference


@pytest.fixture(params=["open", "shut"])
def doors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TRUEUP_CPU", "portable" if request.param == "shut" else "")
    if request.param == "open":
        monkeypatch.setattr(precision, "has_bf16", lambda: False)
    yield request.param


def policy(folder: Path, four_bit: bool) -> Any:
    """The base with an adapter that changes it."""
    config = AdapterConfig(kind="qlora" if four_bit else "lora", r=3)
    model = adapters.new_adapter(base.load_base(str(folder), four_bit=four_bit), config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return model


def close(doors: str, what: str, found: torch.Tensor, right: torch.Tensor) -> None:
    """In fp32 every number is right; in bf16, which now and then moves one far, their mean error tells."""
    apart = (found.detach() - right).abs()
    error = float(apart.max() if doors == "open" else apart.mean())
    assert error < NATS[doors], f"{what}: {error:.4f} nats apart"


def plain_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """By transformers' own forward of the model as it is, in bf16, and torch's log_softmax."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    labels = batch["labels"][:, 1:]
    return torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels.flatten())


def gradients_of(model: Any, loss: Callable[[], torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss().backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("doors", "four_bit"),
    [
        pytest.param("open", True, id="open-4 bits"),
        pytest.param("open", False, id="open-16 bits"),
        pytest.param("shut", True, id="shut-4 bits"),
        pytest.param("shut", False, id="shut-16 bits", marks=pytest.mark.slow),
    ],
    indirect=["doors"],
)
@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case.name)
def test_a_family_is_that_of_transformers(
    case: Case, four_bit: bool, doors: str, folders: Any, references: Any
) -> None:
    right: Expected = references(case, four_bit)
    model = policy(folders(case), four_bit)
    batch = pad(list(zip(PROMPTS, COMPLETIONS, strict=True)), pad_id=0)
    mask = batch["labels"][:, 1:] != -100

    # what proof, KL and export see
    model.eval()
    with torch.no_grad():
        seen = causal.token_logps(model, batch)
        states = causal.labelled_states(model, batch)
        with adapters.using(model, None):
            others = causal.labelled_states(model, batch)
        kl = head.kl(states, others, causal.output_layer(model))
    rows = list(zip(PROMPTS, COMPLETIONS, strict=True))
    every, without = (torch.cat([of(*row) for row in rows]) for of in (right.logps_of, right.bare_logps_of))
    close(doors, "log-probabilities", seen[mask], torch.cat(right.logps))
    close(doors, "KL", kl, (every.exp() * (every - without)).sum(-1))

    # what TRL's trainers train with
    model.train()
    gradients = right.gradients if doors == "open" else gradients_of(model, lambda: plain_loss(model, batch))
    add_fused_lm_head(model.get_base_model())
    if cpu.accelerate(model):
        training_head.install(model.get_base_model())
    out = model(**batch, fused_lm_head=True, use_cache=False)
    close(doors, "loss", out.loss, torch.tensor(right.loss))
    close(doors, "log-probabilities in training", out.log_probs[mask], torch.cat(right.logps))
    found = gradients_of(model, lambda: out.loss)
    assert found.keys() == gradients.keys()
    ours, theirs = (torch.cat([g[name].flatten() for name in sorted(found)]) for g in (found, gradients))
    apart = float((ours - theirs).norm() / theirs.norm())
    assert apart < ROUNDING[doors], f"gradients: {apart:.4f} apart"

    # what is sampled
    greedy = Sampling(max_new_tokens=NEW_TOKENS, temperature=0, top_p=1.0, batch_size=8, seed=0)
    done = engine(model, tokenizer(), greedy)([list(prompt) for prompt in PROMPTS], 0)
    if doors == "open":
        assert [generated.ids for generated in done] == right.greedy
    for prompt, generated in zip(PROMPTS, done, strict=True):
        every = right.logps_of(prompt, generated.ids)
        chosen = every.gather(-1, torch.tensor(generated.ids)[:, None])[:, 0]
        close(doors, "greedy choice", chosen, every.amax(-1))
        close(doors, "log-probabilities of the engine", torch.tensor(generated.logps), chosen)


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case.name)
def test_what_is_exported_is_the_policy(
    case: Case, folders: Any, references: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    model = policy(folders(case), True)
    model.save_pretrained(tmp_path / "adapter")
    merging.write(model, tmp_path / "merged", saved_in_4_bits=False)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32, attn_implementation="eager")
    right: Expected = references(case, True)
    for prompt, completion, expected_logps in zip(PROMPTS, COMPLETIONS, right.logps, strict=True):
        with torch.no_grad():
            logits = whole(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        logps_of_file = torch.log_softmax(logits, -1).gather(-1, torch.tensor(completion)[:, None])[:, 0]
        close("shut", "log-probabilities", logps_of_file, expected_logps)  # the file is in bf16


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case.name)
def test_a_reward_model_scores_alike_as_a_classifier_and_beside_the_policy(
    case: Case, doors: str, folders: Any, tmp_path: Path
) -> None:
    """As a classifier it is trained, by transformers' own forward; on the causal base, PPO and evaluation use it."""
    bare = base.load_base(str(folders(case)), four_bit=True, num_labels=1)
    bare.config.pad_token_id = 0
    classifier = adapters.new_adapter(bare, AdapterConfig(r=3), task_type="SEQ_CLS").eval()
    generator = torch.Generator().manual_seed(2)
    for _, parameter in sorted(classifier.named_parameters()):
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    classifier.save_pretrained(tmp_path)
    rows = [[4, 2, 5, 6, 7, 8, 9, 2], [4, 2, 5, 6, 7, 2], [4, 2, 40, 2]]
    with torch.no_grad():
        score = classifier.get_base_model().score
        score.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(), *inputs[1:]))
        right = torch.cat([classifier(torch.tensor([row])).logits.float()[:, 0] for row in rows])
    model = policy(folders(case), True)
    found = scoring.scores(model, scoring.load_reward(model, tmp_path), rows)
    assert right.std() > 0.01
    assert (found - right).abs().max() < (1e-3 if doors == "open" else 0.1)


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case.name)
def test_the_decoder_for_gpus_gives_what_generate_gives_or_says_why_it_is_not_right(
    case: Case, references: Any
) -> None:
    right: Expected = references(case, True)
    whole = right.model.get_base_model()
    reason = llama.unknown(whole)
    if reason:
        assert case.model_type in reason or "rotation" in reason
        return
    layer = causal.output_layer(right.model)
    for merged in (True, False):
        made = Decoder(whole, layer.logits, merged=merged)
        options = {"max_new_tokens": NEW_TOKENS, "temperature": 0.0, "top_p": 1.0, "end_ids": (2,), "seed": 0}
        done = complete(made, [list(prompt) for prompt in PROMPTS], batch_size=3, **options)
        assert [ids for ids, _ in done] == right.greedy


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
@pytest.mark.parametrize("load", [base.load_base, base.skeleton], ids=["with weights", "at a stage's start"])
def test_a_family_that_is_not_known_is_refused_by_name(case: Case, load: Any, folders: Any) -> None:
    with pytest.raises(ModelError, match=f"model.base: .*{case.refused}"):
        load(str(folders(case)), four_bit=True)
