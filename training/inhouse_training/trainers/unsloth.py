"""Unsloth on one CUDA GPU: the same run as :mod:`~inhouse_training.trainers.trl`, with Unsloth's kernels.

Importing Unsloth patches the whole interpreter and fails without a GPU, so it happens here only, in the
child process, and before transformers is imported. Its telemetry is off (``UNSLOTH_DISABLE_STATISTICS``,
set by the parent), model names are never mapped to its mirrors (``use_exact_model_name``), and the caches
that it writes into the current folder land in the run's own folder.

How this was checked: on an H100 beside the TRL trainer, with unsloth 2026.10.7 (``benchmarks/trainers_on_gpu.py``,
figures in ``docs/measurements.md``), in 4 bit on an H200 (``benchmarks/four_bits.py``), and step by step on a
processor, where 2026.10.9 trains, too (``tests/training/test_trainers_agree.py``, where Unsloth is installed).
"""

from __future__ import annotations

from pathlib import Path

from . import Job, Reporter, run_trainer

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def train(job: Job, run_dir: Path, reporter: Reporter) -> bool:
    """Train one adapter; whether the run came to its end."""
    from unsloth import FastLanguageModel  # isort: skip  (patches what follows)

    from trl import SFTTrainer

    from ..base_model import load_tokenizer
    from ..half import training_dtype
    from .loop import RunCallback, checkpointing_here, load_rows, run, sft_arguments

    recipe, lora = job.recipe, job.recipe.lora
    checkpointing = checkpointing_here(job, "unsloth")
    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(job.base.path),
        max_seq_length=recipe.data.max_tokens,
        dtype=training_dtype(),  # what 4-bit weights are multiplied in, too
        load_in_4bit=recipe.trainer.load_in_4bit,
        use_exact_model_name=True,
        random_state=recipe.seed,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(ALL_LINEAR if isinstance(lora.targets, str) else lora.targets),
        use_gradient_checkpointing="unsloth" if checkpointing != "none" else False,
        random_state=recipe.seed,
        max_seq_length=recipe.data.max_tokens,
    )
    trainer = SFTTrainer(
        model=model,
        args=sft_arguments(job, run_dir, checkpointing),
        train_dataset=load_rows(job),
        processing_class=load_tokenizer(job.base),
    )
    return run(trainer, RunCallback(job, run_dir, reporter), job, run_dir)


if __name__ == "__main__":
    run_trainer(train)
