"""Speed and memory of supervised training with transformers' Trainer, beside which `reckon sft` is measured: the same rows,
the model's own template, loss on the assistant's turns alone, fp32, padded batches.

    pip install torch transformers accelerate
    python scripts/sft_speed.py MODEL ROWS.jsonl [--steps 5] [--batch 16] [--micro 8] [--threads 2]

MODEL is a folder, ROWS has `messages` of a user and an assistant. Prints tokens a second, padding not counted, from the end
of the first step to the end of the last, and the peak of the resident memory.
"""

import argparse
import json
import resource
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

IGNORED = -100


def encode(tokenizer, messages):
    """Token ids of a conversation, and its labels: the last turn alone."""
    ids = lambda turns, **kw: tokenizer(tokenizer.apply_chat_template(turns, tokenize=False, **kw), add_special_tokens=False)["input_ids"]
    whole, prompt = ids(messages), ids(messages[:-1], add_generation_prompt=True)
    assert whole[: len(prompt)] == prompt
    return {"input_ids": whole, "labels": [IGNORED] * len(prompt) + whole[len(prompt) :]}


def collate(rows):
    """Rows of one length, padded on the right."""
    longest = max(len(row["input_ids"]) for row in rows)
    pad = lambda key, fill: torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in rows])
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows])
    return {"input_ids": pad("input_ids", 0), "labels": pad("labels", IGNORED), "attention_mask": mask}


class Clock(TrainerCallback):
    """When each step ended."""

    ends: list = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.perf_counter())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    needed = args.steps * args.batch
    rows = [encode(tokenizer, json.loads(line)["messages"]) for line in open(args.rows).readlines()[:needed]]
    assert len(rows) == needed, f"{args.rows} has {len(rows)} rows, {needed} are needed"
    clock = Clock()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir="/tmp/sft-speed", max_steps=args.steps, per_device_train_batch_size=args.micro,
            gradient_accumulation_steps=args.batch // args.micro, learning_rate=1e-5, save_strategy="no", report_to=[],
            use_cpu=True, remove_unused_columns=False, dataloader_drop_last=True, disable_tqdm=True, seed=1,
        ),
        train_dataset=rows,
        data_collator=collate,
        callbacks=[clock],
    )
    trainer.train()
    # Rows are shuffled: the mean stands for those of the timed steps.
    tokens = sum(len(row["input_ids"]) for row in rows) / args.steps
    seconds = (clock.ends[-1] - clock.ends[0]) / (args.steps - 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"transformers' Trainer: {tokens / seconds:.0f} tokens/s ({seconds:.1f} s a step of {tokens:.0f} tokens), peak {peak:.2f} GiB")


main()
