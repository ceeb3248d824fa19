"""Bugs of a GPU's own code, and the emulated GPU."""

from __future__ import annotations

from .bug import Bug

GPU = "tests/unit/test_gpu_decoder.py"
TRAINING = "src/trueup/training/"
COMMON = TRAINING + "common.py"
PPO = "src/trueup/online/ppo/"
EMULATED = "tests/gpu_emulated/test_"
FINITE = "tests/unit/test_finite.py::test_"

BUGS = [
    Bug(
        "a tensor of PPO's update left on the CPU",
        "gpu",
        PPO + "update.py",
        "values[self.rows, : self.mask.shape[1]].to(self.mask.device)",
        "values[self.rows, : self.mask.shape[1]].cpu()",
        (EMULATED + "chain.py::test_every_stage_is_built_and_trains",),
    ),
    Bug(
        "the host waits for every loss",
        "gpu",
        TRAINING + "lean.py",
        "        return (loss, outputs) if return_outputs else loss",
        "        loss.item()\n        return (loss, outputs) if return_outputs else loss",
        (EMULATED + "chain.py::test_a_step_waits_for_the_device_no_more_than_it_must",),
    ),
    Bug(
        "the host waits for every figure of PPO's update",
        "gpu",
        PPO + "update.py",
        "torch.stack([value.detach().float() for value in means.values()]).tolist()",
        "[value.item() for value in means.values()]",
        (EMULATED + "chain.py::test_a_step_waits_for_the_device_no_more_than_it_must",),
    ),
    Bug(
        "a loss that is NaN logged as 0",
        "gpu",
        COMMON,
        '"logging_nan_inf_filter": False,',
        '"logging_nan_inf_filter": True,',
        (EMULATED + "overflow.py",),
    ),
    Bug(
        "a held-out loss that is NaN taken for the best",
        "gpu",
        TRAINING + "finite.py",
        '(metrics or {}).get("eval_loss")',
        '(metrics or {}).get("eval_los")',
        (EMULATED + "overflow.py",),
    ),
    Bug(
        "a model in fp16 whatever model.dtype says",
        "gpu",
        COMMON,
        ", dtype=run.model.dtype)",
        ")",
        (EMULATED + "overflow.py",),
    ),
    Bug(
        "the whole of a long demonstration in the probe",
        "gpu",
        TRAINING + "steps.py",
        "probe=probe, longest=longest)",
        "probe=probe, longest=None)",
        (EMULATED + "chain.py::test_log_probabilities_are_those_of_plain_transformers",),
    ),
    Bug(
        "eight rows of the probe at once",
        "gpu",
        TRAINING + "proof.py",
        """            for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
                one = {key: value[row : row + 1, :length] for key, value in batch.items()}
                found[row, : length - 1] = causal.token_logps(model, one)[0].cpu()""",
        "            found = causal.token_logps(model, batch).cpu()",
        ("tests/unit/test_proof.py::test_its_rows_are_cut_and_read_one_at_a_time",),
    ),
    Bug(
        "two GPUs left to the Trainer",
        "gpu",
        COMMON,
        "made._n_gpu = 1",
        "pass",
        (EMULATED + "chain.py::test_every_stage_is_built_and_trains",),
    ),
    Bug(
        "a wait for each gradient",
        "gpu",
        TRAINING + "finite.py",
        "norm = torch.nn.utils.get_total_norm(gradients)",
        "norm = torch.stack([torch.tensor(g.norm().item()) for g in gradients])",
        (FINITE + "gradients_are_looked_at_together",),
    ),
    Bug(
        "a scale that falls for ever",
        "gpu",
        TRAINING + "finite.py",
        "if self.scale < SMALLEST_SCALE:",
        "if self.scale < 0:",
        (FINITE + "the_scale_may_fall_but_not_below_1", EMULATED + "overflow.py"),
    ),
    Bug(
        "a stage without one step taken is complete",
        "gpu",
        TRAINING + "finite.py",
        "if self.num_steps and self.num_left_out == self.num_steps:",
        "if False:",
        (FINITE + "a_stage_that_took_no_step_does_not_end_well",),
    ),
    Bug(
        "adapters switched at every micro-batch",
        "gpu",
        PPO + "update.py",
        """        with roles.valuing():  # once: each switch of adapters walks over all layers
            for part in parts:
                _add""",
        """        for part in parts:
            with roles.valuing():
                _add""",
        ("tests/e2e/test_ppo_details.py::test_an_update_switches_adapters_once_a_minibatch",),
    ),
    Bug(
        "no warning of models that leave fp16",
        "gpu",
        "src/trueup/models/base.py",
        "if kind not in families.BEYOND_FP16:",
        "if True:",
        ("tests/unit/test_dtype.py",),
    ),
    Bug(
        "a step sees one column too many",
        "gpu",
        "src/trueup/gpu/decoder.py",
        "hidden = columns > positions[:, None]",
        "hidden = columns > positions[:, None] + 1",
        (GPU + "::test_log_probabilities_are_those_of_a_plain_forward",),
    ),
    Bug(
        "a sliding window one token too long",
        "gpu",
        "src/trueup/gpu/decoder.py",
        "columns <= positions[:, None] - seen",
        "columns < positions[:, None] - seen",
        (GPU + "::test_log_probabilities_are_those_of_a_plain_forward",),
    ),
    Bug(
        "LoRA's scaling left out of the merged copy",
        "gpu",
        "src/trueup/gpu/maps.py",
        "lora.a.float(), alpha=lora.scaling)",
        "lora.a.float())",
        (GPU + "::test_greedy_completions_are_those_of_generate",),
    ),
    Bug(
        "the adapters' products of neighbouring maps mixed",
        "gpu",
        "src/trueup/gpu/maps.py",
        "column += rank",
        "column += 0",
        (GPU + "::test_greedy_completions_are_those_of_generate",),
    ),
    Bug(
        "a prompt computed for each of its copies",
        "gpu",
        "src/trueup/gpu/decoder.py",
        "[key for key in where if key not in held]",
        "list(where)",
        (GPU + "::test_a_prompt_is_computed_once_however_often_it_is_completed",),
    ),
    Bug(
        "a captured step trusted unseen",
        "gpu",
        "src/trueup/gpu/graphs.py",
        "if not error <= MAX_ERROR:",
        "if error < 0:",
        (GPU + "::test_a_captured_step_that_differs_is_never_used",),
    ),
    Bug(
        "a sliding window forgotten where there is no padding",
        "gpu",
        "src/trueup/gpu/attention.py",
        "band = None if window is None or q.shape[2] <= window else",
        "band = None if True else",
        ("tests/architectures/test_gpu_families.py",),
    ),
    Bug(
        "rows that follow each other see the rows before them",
        "gpu",
        "src/trueup/gpu/rows.py",
        "lengths = [length for length in real.sum(1).tolist() if length]",
        "lengths = [int(real.sum())]",
        ("tests/architectures/test_gpu_families.py",),
    ),
    Bug(
        "positions that run on from row to row",
        "gpu",
        "src/trueup/gpu/rows.py",
        "torch.cat([torch.arange(length) for length in lengths])",
        "torch.arange(sum(lengths))",
        ("tests/architectures/test_gpu_families.py",),
    ),
    Bug(
        "LoRA's scaling forgotten in the fused gradient of A",
        "gpu",
        "src/trueup/gpu/lora.py",
        ".float().mul_(ctx.maps[0].scaling).split",
        ".float().split",
        ("tests/architectures/test_gpu_families.py", "tests/unit/test_gpu_lora.py"),
    ),
    Bug(
        "a layer takes what its siblings made of another input",
        "gpu",
        "src/trueup/gpu/lora.py",
        "if x is self.x and id(module) in self.ready:",
        "if id(module) in self.ready:",
        ("tests/unit/test_gpu_lora.py",),
    ),
    Bug(
        "dropout left out by the fused LoRA",
        "gpu",
        "src/trueup/gpu/lora.py",
        'if module.training and getattr(module.lora_dropout[name], "p", 0.0) > 0:',
        "if False:",
        ("tests/unit/test_gpu_lora.py",),
    ),
    Bug(
        "grouped queries left to the slowest kernel below 8.0",
        "gpu",
        "src/trueup/gpu/attention.py",
        "return _capability(query.device) >= (8, 0) and query.shape[-1] <= 256",
        "return True",
        ("tests/gpu_emulated/test_speed.py",),
    ),
]
