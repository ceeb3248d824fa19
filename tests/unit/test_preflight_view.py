"""What preflight prints: samples that differ, both sides of a pair, and masks that a pipe shows as well."""

import re

import pytest

from trueup.chat import preflight_view
from trueup.chat.tokens import IGNORED, Sample

METRICS = {
    "num_samples": 2,
    "num_checked": 2,
    "longest_tokens": 4,
    "num_cut": 0,
    "num_dropped": 0,
    "end_token": "<e>",
    "warnings": ["a\x1b[31mb"],
}


class Letters:
    """A tokenizer of letters: id 0 is the end token."""

    all_special_ids = (0,)

    def decode(self, ids: list[int]) -> str:
        return "".join("<e>" if i == 0 else chr(96 + i) for i in ids)


def sample(name: str, ids: list[int], trained_from: int | None) -> Sample:
    labels = None if trained_from is None else [IGNORED] * trained_from + ids[trained_from:]
    return Sample(name, ids, labels, ids[:1], ids)


def shown(samples: list[Sample], capsys: pytest.CaptureFixture[str]) -> str:
    preflight_view.show("dpo", samples, Letters(), METRICS)
    return capsys.readouterr().out


def test_a_pipe_shows_what_is_trained_on_between_marks(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown([sample("p1", [1, 2, 3, 0], 2)], capsys)
    assert "  ab>>c<e><<\n" in said
    assert "between >> and <<" in said
    assert "masked" not in said


def test_of_pairs_both_sides_are_shown_and_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """Three pairs of one prompt with one chosen answer, as votes on four completions make them."""
    chosen = [sample(f"p{i}", [1, 2, 0], None) for i in range(3)]
    rejected = [sample(f"p{i}", [1, 3 + i, 0], None) for i in range(3)]
    said = shown(preflight_view.named(chosen + rejected, 3), capsys)
    assert re.findall(r"sample (.*?), 3 tokens", said) == ["p0, chosen", "p0, rejected", "p1, rejected"]
    assert re.findall(r"^  ([a-z].*)<e>$", said, re.MULTILINE) == ["ab", "ac", "ad"]
    assert "trained on" not in said


def test_a_terminal_shows_colours_and_their_legend(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    said = shown([sample("p1", [1, 2, 3, 0], 2)], capsys)
    assert "\x1b[32mc" in said  # green
    assert "masked" in said
    assert ">>" not in said


def test_escapes_of_a_file_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert "warning: a\\x1b[31mb" in shown([sample("p1", [1, 0], 1)], capsys)


def test_of_a_long_sample_the_middle_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    long = [1] * 100 + [2] * 100
    said = shown([sample("p1", long, None)], capsys)
    assert f"{'a' * 80} [{200 - preflight_view.MAX_SHOWN} tokens more] {'b' * 80}" in said
