"""Names that other tools use for what a run file calls otherwise."""

SECTIONS = {
    "adapter": "lora qlora peft peft_config lora_config lora_params adapters dora adalora",
    "data": "dataset datasets train_data training_data files",
    "sft": "train training trainer finetune finetuning fine_tuning sft_config training_args training_arguments",
    "sample": "sampling generation generate generation_config rollout completions",
    "collect": "labels labelling labeling annotation annotations annotate feedback",
    "labelstudio": "label_studio label-studio ls server",
    "reward": "reward_model rm reward_config",
    "dpo": "dpo_config preference",
    "kto": "kto_config",
    "ppo": "ppo_config",
    "grpo": "grpo_config",
    "evaluate": "eval evaluation evaluator test",
    "export": "merge save output",
    "goal": "goals target targets_met",
    "model.base": "model_name model_name_or_path model_id base base_model pretrained checkpoint",
    "method": "algorithm algo alignment trainer_type loss_type align",
    "seed": "random_seed",
    "name": "run_name project experiment output_dir",
    "round": "iteration",
}

KEYS = {
    "base": "name model_name model_name_or_path name_or_path id path model pretrained",
    "kind": "type method peft_type",
    "targets": "target_modules modules target",
    "r": "rank lora_r lora_rank lora_dim",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "start": "path adapter_path init_from resume",
    "demonstrations": "train training sft examples train_file train_path",
    "held_out": "eval test validation val dev test_file heldout",
    "prompts": "questions prompt inputs",
    "preferences": "pairs thumbs dpo comparisons",
    "system": "system_prompt system_message",
    "few_shot": "shots examples fewshot",
    "columns": "column_names column_mapping mapping fields",
    "learning_rate": "lr",
    "num_train_epochs": "epochs num_epochs n_epochs",
    "per_device_train_batch_size": "batch_size train_batch_size micro_batch_size bs",
    "gradient_accumulation_steps": "grad_accum gradient_accumulation accumulation_steps grad_accumulation",
    "max_length": "max_seq_length max_seq_len cutoff_len seq_len max_tokens context_length",
    "max_new_tokens": "max_tokens max_length",
    "max_completion_length": "max_new_tokens max_tokens",
    "num_completions": "n num_samples num_return_sequences num_generations samples",
    "beta": "kl_coef kl_beta",
    "kl_coef": "beta kl_beta init_kl_coef",
    "num_steps": "max_steps steps",
    "max_steps": "num_steps steps",
    "url": "host address server base_url",
    "win_rate": "winrate min_win_rate",
    "kl": "max_kl kl_divergence",
}


def same_as(name: str, known: list[str], *, of_sections: bool) -> str | None:
    """What a run file calls `name`, when it is one of `known` (or `known` holds the section it is in)."""
    table = SECTIONS if of_sections else KEYS
    wanted = name.lower().replace("-", "_")
    for ours, others in table.items():
        if ours.partition(".")[0] in known and wanted in others.replace("-", "_").split():
            return ours
    return None
