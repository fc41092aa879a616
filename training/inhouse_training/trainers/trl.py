"""TRL's ``SFTTrainer`` with PEFT: runs anywhere, on the CPU too (TRL 1.14; 1.15 cannot).

Started by :func:`inhouse_training.finetune.finetune`, never by hand.
"""

from __future__ import annotations

from .. import lean as lean  # first: it decides what transformers takes along

# isort: split
import contextlib
from pathlib import Path

from . import Job, Reporter, run_trainer


def train(job: Job, run_dir: Path, reporter: Reporter) -> bool:
    """Train one adapter; whether the run came to its end."""
    from peft import LoraConfig
    from transformers import set_seed

    from ..base_model import load_model, load_tokenizer
    from ..half import training_dtype
    from ..speed import compile_layers, cudnn_first, use_documents_attention
    from .loop import (
        RunCallback,
        checkpointing_here,
        compiles_here,
        documents_here,
        keep_in_bfloat16,
        load_rows,
        run,
        sft_arguments,
        share_here,
        trainer_class,
    )
    from .several import take_own_device

    # The trainer sets the seed only after it has drawn the adapter's first weights.
    take_own_device()
    set_seed(job.recipe.seed)
    lora = job.recipe.lora
    compiled = compiles_here(job)
    arguments = sft_arguments(job, run_dir, checkpointing_here(job, "trl", compiled), compiled)
    # What is split is never whole on one GPU.
    model = load_model(job.base, "cpu" if share_here(job).split else None, training_dtype())
    documents = documents_here(job, model)
    if documents:
        use_documents_attention(model)
    trainer = trainer_class(arguments)(
        model=model,
        args=arguments,
        train_dataset=load_rows(job),
        processing_class=load_tokenizer(job.base),
        peft_config=LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
            task_type="CAUSAL_LM",
        ),
    )
    if lora.dtype == "bfloat16":
        keep_in_bfloat16(trainer.model)
    if compiled:
        compile_layers(trainer.model)
    with cudnn_first() if documents and arguments.bf16 else contextlib.nullcontext():
        return run(trainer, RunCallback(job, run_dir, reporter), job, run_dir)


if __name__ == "__main__":
    run_trainer(train)
