"""Bugs of chat and the server of models."""

from __future__ import annotations

from .bug import Bug

SPEAKER = "src/trueup/talk/speaker.py"
TALK = "tests/talk/test_"
BEST = "src/trueup/talk/best.py"
CHOSEN = "tests/talk/test_best_answers.py::test_"

BUGS = [
    Bug(
        "a stop text is shown",
        "talk",
        "src/trueup/talk/spoken.py",
        "self.text[: min(places)], True",
        "self.text, True",
        (TALK + "spoken.py::test_half_a_character_waits_and_a_stop_text_is_never_shown",),
    ),
    Bug(
        "whichever model is asked for, one adapter answers",
        "talk",
        SPEAKER,
        "with adapters.using(self._model, name):",
        'with adapters.using(self._model, "default"):',
        (TALK + "serve.py::test_an_adapter_by_name_answers_as_transformers_does",),
    ),
    Bug(
        "what sampled as another model samples as this one",
        "talk",
        SPEAKER,
        "self._engine is None or self._engine[0] != model.name",
        "self._engine is None",
        (TALK + "serve.py::test_the_models_differ",),
    ),
    Bug(
        "the seed of a request ignored",
        "talk",
        SPEAKER,
        "how.seed % SEEDS, hear=hear)",
        "0, hear=hear)",
        (TALK + "serve.py::test_a_seed_repeats_an_answer_and_without_one_it_is_told",),
    ),
    Bug(
        "data.system left out of a conversation",
        "talk",
        SPEAKER,
        "messages = in_context(self.run.data, asked)",
        "messages = asked",
        (TALK + "serve.py::test_the_system_message_of_the_run_comes_first_and_that_is_stated",),
    ),
    Bug(
        "an answer goes on when its client has gone",
        "talk",
        "src/trueup/talk/desk.py",
        "            gone.set()",
        "            pass",
        (TALK + "serve.py::test_a_client_that_goes_away_stops_the_answer",),
    ),
    Bug(
        "the Host header not looked at",
        "talk",
        "src/trueup/talk/guard.py",
        "if self.loopback and not",
        "if False and not",
        (TALK + "serve.py::test_pages_of_other_sites_cannot_ask",),
    ),
    Bug(
        "any key opens",
        "talk",
        "src/trueup/talk/guard.py",
        '!= "bearer" or not same',
        '!= "bearer"',
        (TALK + "serve.py::test_a_key_is_needed_where_there_is_one",),
    ),
    Bug(
        "a blind vote is kept for the other side",
        "talk",
        "src/trueup/talk/blind.py",
        "comparison(*_uids(a, b)",
        "comparison(*_uids(b, a)",
        (TALK + "chat.py::test_a_blind_vote_is_a_comparison_that_collect_takes_in",),
    ),
    Bug(
        "judgements in use train on held-out prompts",
        "talk",
        "feedback/use.py",
        "if any(self.is_held_out",
        "if False and any(self.is_held_out",
        (TALK + "use.py::test_judgements_about_held_out_prompts_are_left_out",),
    ),
    Bug(
        "in use, the worst of several answers is given",
        "talk",
        "src/trueup/evaluation/best_of.py",
        "key=lambda i: -scores[i]",
        "key=lambda i: scores[i]",
        (CHOSEN + "in_a_conversation_the_best_is_chosen_and_kept_as_such",),
    ),
    Bug(
        "several answers scored without what was said before",
        "talk",
        BEST,
        "[answers[0].prompt.messages]",
        "[answers[0].prompt.messages[-1:]]",
        (CHOSEN + "in_a_conversation_the_best_is_chosen_and_kept_as_such",),
    ),
    Bug(
        "an answer scored beyond the stop text that ended it",
        "talk",
        BEST,
        'if answer.finish != "stop":',
        "if True:",
        (CHOSEN + "what_a_stop_text_ends_is_scored_as_it_is_shown",),
    ),
    Bug(
        "the best of several answers kept as a sample of the model",
        "talk",
        "src/trueup/talk/answers.py",
        "if (best := self.chosen) is not None:",
        "if (best := self.chosen) is not None and not best.n:",
        (CHOSEN + "in_a_conversation_the_best_is_chosen_and_kept_as_such",),
    ),
    Bug(
        "tokens of answers that were not chosen are not counted",
        "talk",
        "src/trueup/talk/answers.py",
        "if best is None else best.num_tokens",
        "if best is None or best else 0",
        (TALK + "serve.py::test_all_tokens_that_were_sampled_are_counted",),
    ),
]
