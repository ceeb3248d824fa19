"""The faults of one sample, on token ids written by hand. Each test fails without its check."""

from dataclasses import replace

import pytest

from trueup.chat.tokens import KINDS, Sample, Special, faults
from trueup.errors import visible

BOS, END, PAD, USER, ASSISTANT, NEWLINE = 1, 2, 2, 3, 4, 5
SPECIAL = Special(bos=BOS, eos=END, pad=PAD, all=frozenset({BOS, END, USER, ASSISTANT}))
PROMPT = [BOS, USER, 10, 11, END, ASSISTANT]
WHOLE = [*PROMPT, 20, 21, END, NEWLINE]
GOOD = Sample("a", WHOLE, [-100] * 6 + WHOLE[6:], PROMPT, WHOLE)


def with_labels(change: dict[int, int]) -> Sample:
    labels = list(GOOD.labels or [])
    for position, label in change.items():
        labels[position] = label
    return replace(GOOD, labels=labels)


def everywhere(ids: list[int], prompt: list[int] = PROMPT) -> Sample:
    start = len(prompt)
    return Sample("a", ids, [-100] * start + ids[start:], prompt, ids)


def test_a_good_sample_has_no_faults_and_padding_may_be_the_end_token() -> None:
    assert faults(GOOD, SPECIAL) == []
    assert faults(replace(GOOD, labels=None), SPECIAL) == []


@pytest.mark.parametrize(
    ("kind", "sample"),
    [
        ("bos", everywhere([BOS, USER, *WHOLE], [BOS, USER, *PROMPT])),
        ("doubled", everywhere([*PROMPT, 20, END, END, NEWLINE])),
        ("prefix", replace(GOOD, prompt=[*PROMPT, 99])),
        ("other", replace(GOOD, ids=[*PROMPT, 20, 22, END, NEWLINE])),
        ("other", replace(GOOD, ids=WHOLE[:-1], labels=(GOOD.labels or [])[:-1])),  # cut, and nobody asked for it
        ("no_end", everywhere([*PROMPT, 20, 21, NEWLINE])),  # the end of the user's turn does not count
        ("prompt", with_labels({2: 10})),
        ("answer", with_labels({6: -100})),
        ("answer", with_labels({6: 21})),
        ("end", with_labels({8: -100})),
    ],
)
def test_each_fault_is_found_alone(kind: str, sample: Sample) -> None:
    assert faults(sample, SPECIAL) == [kind]
    assert kind in KINDS


def test_a_template_may_begin_every_turn_with_the_bos_token() -> None:
    ids = [BOS, 10, END, NEWLINE, BOS, 20, END]
    sample = replace(everywhere(ids, ids[:5]), num_bos_written=2)
    assert faults(sample, SPECIAL) == []
    assert faults(replace(sample, num_bos_written=1), SPECIAL) == ["bos"]


def test_labels_masked_by_the_padding_id_lose_the_end() -> None:
    labels = [label if label != PAD else -100 for label in GOOD.labels or []]
    assert faults(replace(GOOD, labels=labels), SPECIAL) == ["end"]


def test_a_sample_cut_by_max_length_has_no_end_and_is_no_fault_but_is_cut() -> None:
    cut = replace(GOOD, ids=WHOLE[:8], labels=(GOOD.labels or [])[:8], max_length=8)
    assert cut.is_cut
    assert faults(cut, SPECIAL) == []
    assert not replace(GOOD, max_length=len(WHOLE)).is_cut


def test_escape_sequences_of_a_text_are_written_out() -> None:
    assert visible("a\x1b[31m\nb\x07") == "a\\x1b[31m\nb\\x07"
