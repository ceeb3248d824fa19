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
            for kind in ("sft", "dpo", "kto", "reward")
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
        "transformers:Trainer._remove_unused_columns",
        "rows that several ranks share, as the collator takes them",
        takes=("self", "dataset", "description"),
    ),
    Private(
        "transformers",
        "transformers:Trainer._prepare_inputs",
        "a held-out batch of several ranks, on its device",
        takes=("self", "inputs"),
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
        "transformers",
        "transformers:PreTrainedConfig._attn_implementation",
        "which attention a loaded model computes",
    ),
    Private(
        "transformers",
        "transformers.masking_utils:_preprocess_mask_arguments",
        "a mask of four dimensions reaches the layers as it is: ours holds the lengths of rows",
        says=("len(attention_mask.shape) == 4", "return True, attention_mask, None"),
    ),
    Private("transformers", "transformers.masking_utils:sdpa_mask", "the masks of our attention"),
    Private(
        "transformers",
        "transformers.integrations.sdpa_attention:sdpa_attention_forward",
        "what our attention is but for two cases",
        takes=("module", "query", "key", "value", "attention_mask", "dropout", "scaling", "is_causal"),
        says=("module.num_key_value_groups", "enable_gqa"),
    ),
    Private(
        "peft",
        LAYER,
        "our own forward reads a LoRA layer, on a CPU and on a GPU",
        says=(
            *("self.lora_A = ", "self.lora_B = ", "self.scaling = ", "self.lora_dropout = ", "self.use_dora"),
            *("self.lora_variant", "self.merged_adapters = "),
        ),
    ),
    Private("peft", "peft.tuners.lora.bnb:Linear4bit.forward", "fused with its siblings on a GPU", takes=("self", "x")),
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
    Private(
        "transformers",
        "transformers:PreTrainedModel.save_pretrained",
        "an export merges a map when it is taken out to be written, so that one file is in memory at a time",
        says=("tensor = state_dict.pop(tensor_name)",),
    ),
    Private(
        "transformers",
        "transformers.core_model_loading:revert_weight_conversion",
        "whether a base's weights are stored under other names, or in another shape, than in memory",
        says=('"_weight_conversions"',),
    ),
    Private("torch", "torch:cpu._is_avx512_bf16_supported", "what the processor multiplies in bf16"),
    Private("torch", "torch:cpu._is_amx_tile_supported", "whether the processor has tiles"),
    Private("torch", "torch:cpu._init_amx", "asks the kernel for the tiles"),
)
