"""What trueup needs of TRL, transformers, peft, bitsandbytes and torch beyond what they document, in one table.

An upgrade that moves one of these breaks a training stage, sometimes without an error. tests/unit/test_compat.py holds
each entry against the installed libraries and says which library moved what; it also finds private names in the
sources that are not listed here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Private:
    """`name` is module:attribute; it takes these parameters first, in order, and its source says these texts."""

    library: str
    name: str
    why: str
    takes: tuple[str, ...] = ()
    says: tuple[str, ...] = ()


TRAINERS = {kind: f"trl.trainer.{kind}_trainer:{kind.upper()}Trainer" for kind in ("sft", "dpo", "kto", "grpo")} | {
    "reward": "trl.trainer.reward_trainer:RewardTrainer"
}
LOSS = ("self", "model", "inputs", "return_outputs")


def _of_trainers() -> tuple[Private, ...]:
    metrics = "where a loss of ours leaves its figures, by train or eval"
    found = [
        *(
            Private("trl", f"{TRAINERS[kind]}.__init__", metrics, says=("self._metrics = {",))
            for kind in ("dpo", "kto", "reward")
        ),
        *(
            Private(
                "trl",
                f"{TRAINERS[kind]}._set_signature_columns_if_needed",
                "the column `weight` is added to what reaches the collator",
                takes=("self",),
                says=("self._signature_columns",),
            )
            for kind in ("dpo", "kto", "reward")
        ),
        *(
            Private(
                "trl",
                f"{TRAINERS[kind]}._prepare_dataset",
                "answered with the rows as they are: they hold token ids",
                takes=("self", "dataset"),
            )
            for kind in ("dpo", "kto")
        ),
        *(
            Private("trl", f"{TRAINERS[kind]}._compute_loss", "our loss takes its place", takes=LOSS)
            for kind in ("dpo", "kto")
        ),
        *(
            Private(
                "trl",
                f"{TRAINERS[kind]}.__init__",
                'a frozen copy of the adapter is called "ref", on the same base',
                says=('add_adapter("ref"',),
            )
            for kind in ("dpo", "kto", "grpo")
        ),
        *(
            Private(
                "trl",
                f"{TRAINERS[kind]}.__init__",
                "forward(fused_lm_head=True) answers with log-probabilities; ours takes its place on a CPU",
                says=("add_fused_lm_head(",),
            )
            for kind in ("sft", "dpo", "kto", "grpo")
        ),
    ]
    return tuple(found)


LAYER = "peft.tuners.lora.layer:LoraLayer.__init__"
STATE = "bitsandbytes.functional:QuantState.__init__"

TABLE: tuple[Private, ...] = (
    *_of_trainers(),
    Private("trl", f"{TRAINERS['sft']}.compute_loss", "our loss takes its place", takes=(*LOSS, "num_items_in_batch")),
    Private("trl", f"{TRAINERS['reward']}.compute_loss", "our loss takes its place", takes=LOSS),
    Private("trl", f"{TRAINERS['grpo']}._get_train_sampler", "our order of prompts", takes=("self", "dataset")),
    Private("trl", f"{TRAINERS['grpo']}._generate_single_turn", "our engines sample", takes=("self", "prompt_ids")),
    Private("trl", f"{TRAINERS['kto']}._compute_kl_logps", "of mismatched answers", takes=("self", "model", "batch")),
    Private("trl", f"{TRAINERS['kto']}.compute_ref_log_probs", 'under "ref"', takes=("self", "model", "inputs")),
    Private(
        "trl",
        "trl.trainer.utils:FusedCausalLMOutput",
        "what the forward on a CPU answers",
        says=("loss:", "log_probs:", "entropy:", "label_mask:"),
    ),
    Private(
        "trl",
        "trl.trainer.dpo_trainer:DataCollatorForPreference.torch_call",
        "our rows have these columns",
        says=('"prompt_ids"', '"chosen_ids"', '"rejected_ids"', '"ref_chosen_logps"', '"completion_mask"'),
    ),
    Private(
        "trl",
        "trl.trainer.kto_trainer:DataCollatorForUnpairedPreference",
        "our rows have these columns",
        says=('"prompt_ids"', '"completion_ids"', '"KL_completion_ids"', "completion_mask"),
    ),
    Private(
        "trl",
        "trl.trainer.reward_trainer:DataCollatorForPreference",
        "our rows have these columns, and its batch the chosen first",
        says=('"chosen_ids"', '"rejected_ids"'),
    ),
    Private(
        "transformers",
        "transformers:Trainer._get_train_sampler",
        "our order of rows, which a resumed run meets again",
        takes=("self", "train_dataset"),
    ),
    Private(
        "transformers",
        "transformers:Trainer._run_epoch",
        "tells our samplers the number of the epoch",
        says=(".set_epoch(epoch)",),
    ),
    Private(
        "transformers",
        "transformers:TrainingArguments.n_gpu.fget",
        "1 of several GPUs, where torch saw them before we could hide the others",
        says=("return self._n_gpu",),
    ),
    Private(
        "transformers",
        "transformers.trainer_pt_utils:get_length_grouped_indices",
        "rows of similar length in one batch",
        takes=("lengths", "batch_size", "mega_batch_mult", "generator"),
    ),
    Private(
        "transformers",
        "transformers.modeling_layers:GenericForSequenceClassification",
        "a reward model of a family without a classifier",
        says=("self.score = ",),
    ),
    Private(
        "peft",
        LAYER,
        "the CPU's own forward reads a LoRA layer",
        says=("self.lora_A = ", "self.lora_B = ", "self.scaling = ", "self.lora_dropout = ", "self.use_dora"),
    ),
    Private("peft", "peft.tuners.tuners_utils:BaseTunerLayer.disable_adapters", "is the adapter in use"),
    Private("peft", "peft.tuners.tuners_utils:BaseTunerLayer.active_adapters", "which adapter is in use"),
    Private(
        "peft",
        "peft.tuners.adalora.layer:AdaLoraLayer.__init__",
        "AdaLoRA is saved as LoRA of the ranks it found",
        says=("self.lora_E = ", "self.ranknum = "),
    ),
    Private(
        "peft",
        "peft.tuners.adalora.model:AdaLoraModel.update_and_allocate",
        "no trainer calls it after a step: we do",
        takes=("self", "global_step"),
    ),
    Private(
        "bitsandbytes",
        "bitsandbytes.nn.modules:Linear4bit.__init__",
        "turned off: it repacks weights in place, and later gradients are wrong",
        says=("self.support_avx512bf16_for_cpu",),
    ),
    Private("bitsandbytes", "bitsandbytes.nn.modules:Params4bit.__new__", "the 4-bit weight", says=("quant_state",)),
    Private(
        "bitsandbytes",
        STATE,
        "how a 4-bit weight is decoded",
        takes=("self", "absmax", "shape", "code", "blocksize", "quant_type", "dtype", "offset", "state2"),
        says=("self.nested = ",),
    ),
    Private(
        "bitsandbytes", "bitsandbytes.functional:dequantize_blockwise", "scales of scales", takes=("A", "quant_state")
    ),
    Private(
        "bitsandbytes",
        "torch:ops.bitsandbytes.dequantize_4bit.default._schema",
        "decodes a weight without an autograd graph",
        takes=("A", "absmax", "blocksize", "quant_type", "shape", "dtype"),
    ),
    Private("torch", "torch:cpu._is_avx512_bf16_supported", "what the processor multiplies in bf16"),
    Private("torch", "torch:cpu._is_amx_tile_supported", "whether the processor has tiles"),
    Private("torch", "torch:cpu._init_amx", "asks the kernel for the tiles"),
)
