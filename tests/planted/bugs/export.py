"""Bugs of adapters, merged weights and what is measured of them."""

from __future__ import annotations

from .bug import Bug

VERDICT = "tests/wiring/test_verdict.py"

BUGS = [
    Bug(
        "what older versions take for the base of the rotation, left out",
        "export",
        "src/trueup/export/older.py",
        'found[theta] = rope["rope_theta"]',
        "found.pop(theta, None)",
        ("tests/architectures/test_older_keys.py::test_the_keys_are_those_of_the_models_on_the_hub",),
    ),
    Bug(
        "the size of the inputs counted twice in the adapter for 16 bits",
        "export",
        "src/trueup/export/fit.py",
        "root.unsqueeze(-1) * right[:rank] / sizes",
        "root.unsqueeze(-1) * right[:rank]",
        ("tests/unit/test_export_fit.py::test_a_product_of_low_rank_is_as_near_as_any",),
    ),
    Bug(
        "maps that were not trained left as the base has them",
        "export",
        "src/trueup/export/fit.py",
        "base.linear4bit_layers(module)[:1] == [module]",
        "base.linear4bit_layers(module)[:1] == [None]",
        ("tests/unit/test_export_fit.py::test_maps_without_an_adapter_are_corrected_as_well",),
    ),
    Bug(
        "repositories always public",
        "export",
        "src/trueup/export/push.py",
        "private=private, exist_ok=True",
        "private=False, exist_ok=True",
        ("tests/unit/test_push.py::test_each_form_becomes_a_private_repository_with_all_its_files",),
    ),
    Bug(
        "files of an earlier push stay",
        "export",
        "src/trueup/export/push.py",
        'commit_message="Export by trueup", delete_patterns="*"',
        'commit_message="Export by trueup"',
        ("tests/unit/test_push.py::test_a_second_push_leaves_nothing_of_the_first",),
    ),
    Bug(
        "the verdict on other weights in the card",
        "export",
        "src/trueup/export/story.py",
        'r["inputs"].get("aligned") == fingerprint',
        'r["inputs"].get("aligned")',
        ("tests/unit/test_card_parts.py::test_the_verdict_is_that_of_these_weights_with_its_judge",),
    ),
    Bug(
        "merged weights without the adapter",
        "export",
        "src/trueup/export/merging.py",
        "return dense + update.float()",
        "return dense",
        (VERDICT + "::test_what_is_exported_is_the_aligned_adapter",),
    ),
    Bug(
        "the adapter merged into maps that are rounded already",
        "export",
        "src/trueup/export/merging.py",
        "return dense + update.float()",
        "return dense.bfloat16() + update.bfloat16()",
        ("tests/unit/test_export_merging.py::test_it_is_the_sum_that_peft_makes_in_fp32",),
    ),
    Bug(
        "KL the wrong way round in the receipt",
        "export",
        "src/trueup/export/measuring.py",
        "head.kl(self.states, others, self.layer, layer)",
        "head.kl(others, self.states, layer, self.layer)",
        ("tests/unit/test_export_measuring.py::test_it_is_the_kl_of_plain_logits",),
    ),
    Bug(
        "KL the wrong way round for a GGUF",
        "export",
        "src/trueup/export/measuring.py",
        "(logs.exp() * (logs - theirs))",
        "(theirs.exp() * (theirs - logs))",
        ("tests/unit/test_export_measuring.py::test_it_is_the_kl_of_plain_logits",),
    ),
    Bug(
        "the exported adapter is not the merged one",
        "export",
        "src/trueup/export/writing.py",
        'self.out / "adapter", self.source',
        'self.out / "adapter", self.source.parents[1] / "sft"',
        (VERDICT + "::test_what_is_exported_is_the_aligned_adapter",),
    ),
]
