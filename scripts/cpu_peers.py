"""A GRPO step by others on a processor, beside which `reckon bench` is measured: TRL's GRPOTrainer, or PyTorch by hand
(transformers' model and its `generate`, the clipped objective, AdamW). Random weights, prompts of 16 tokens, completions
without an end token, random rewards. `scripts/cpu_check.py` runs both beside Reckon.

    pip install torch transformers trl datasets accelerate
    python scripts/cpu_peers.py trl|torch --shape SHAPE [--bf16] [--threads 2] [--steps 2]

Prints one JSON object: sampled tokens a second, the same for the rest of a step, and the seconds of a step; medians
without the first step. TRL with `--bf16` computes under bf16 autocast, PyTorch with weights and moments of bf16.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

PROMPT_TOKENS = 16
COMMON = {"vocab_size": 64, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
          "num_attention_heads": 4, "num_key_value_heads": 4}
# Of each shape of `reckon bench`, or of sizes given to it: the model, and prompts, completions of each, their tokens, and
# how many completions make a micro-batch.
SHAPES = {
    "common": ("Qwen2", COMMON, (16, 16, 128, 64)),
    "medium": ("Qwen2", COMMON | {
        "vocab_size": 4096, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6,
        "num_attention_heads": 6, "num_key_value_heads": 6}, (8, 8, 64, 8)),
    "smollm2-135m": ("Llama", {
        "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3}, (8, 8, 64, 8)),
    "mixture": ("Qwen3Moe", COMMON | {
        "head_dim": 32, "moe_intermediate_size": 128, "num_experts": 9, "num_experts_per_tok": 3,
        "norm_topk_prob": True}, (16, 16, 128, 64)),
    "latent": ("DeepseekV3", COMMON | {
        "moe_intermediate_size": 128, "first_k_dense_replace": 0, "n_routed_experts": 8, "num_experts_per_tok": 2,
        "n_shared_experts": 1, "n_group": 4, "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
        "q_lora_rank": None, "kv_lora_rank": 48, "qk_nope_head_dim": 24, "qk_rope_head_dim": 16, "v_head_dim": 32},
        (16, 16, 128, 64)),
}


def model_of(family, sizes):
    config = getattr(transformers, f"{family}Config")(
        **sizes, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1,
        pad_token_id=0)
    return getattr(transformers, f"{family}ForCausalLM")(config)


def letters(vocab):
    return [chr(33 + index) for index in range(vocab - 3)]


def tokenizer(vocab):
    """A token for each letter."""
    tokens = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {letter: index + 3 for index, letter in enumerate(letters(vocab))}
    made = Tokenizer(models.WordLevel(tokens, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


@contextlib.contextmanager
def seconds(into):
    begun = time.perf_counter()
    yield
    into.append(time.perf_counter() - begun)


def with_trl(model, vocab, job, args):
    """Seconds of sampling, and of whole steps."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    sampling, steps, (prompts, group, new, micro) = [], [], job

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.begun = time.perf_counter()

        def on_step_end(self, *_, **__):
            steps.append(time.perf_counter() - self.begun)

    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=micro,
        gradient_accumulation_steps=prompts * group // micro, num_generations=group, max_completion_length=new,
        max_steps=args.steps + 1, learning_rate=1e-4, beta=0.0, temperature=1.0, report_to=[], save_strategy="no",
        use_cpu=True, bf16=args.bf16, gradient_checkpointing=False, logging_steps=1, disable_tqdm=True,
        generation_kwargs={"min_new_tokens": new})
    rows = [{"prompt": "".join(random.choices(letters(vocab), k=PROMPT_TOKENS))} for _ in range(512)]
    trainer = GRPOTrainer(
        model=model, processing_class=tokenizer(vocab), args=config, train_dataset=Dataset.from_list(rows),
        reward_funcs=lambda completions, **_: [random.random() for _ in completions], callbacks=[Clock()])
    generate = trainer.model.generate

    def timed(*inputs, **named):
        with seconds(sampling):
            return generate(*inputs, **named)

    trainer.model.generate = timed
    trainer.train()
    return sampling, steps


def with_torch(model, vocab, job, args):
    """Seconds of sampling, and of whole steps."""
    sampling, steps, (prompts, group, new, micro) = [], [], job
    model = model.to(torch.bfloat16) if args.bf16 else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for _ in range(args.steps + 1):
        with seconds(steps):
            prompt = torch.randint(3, vocab, (prompts, PROMPT_TOKENS)).repeat_interleave(group, 0)
            with seconds(sampling), torch.no_grad():
                rows = model.generate(
                    input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, min_new_tokens=new,
                    do_sample=True, top_k=0)
            advantages = torch.randn(len(rows), 1)
            optimizer.zero_grad()
            for first in range(0, len(rows), micro):
                part, advantage = rows[first:first + micro], advantages[first:first + micro]
                logits = model(part, logits_to_keep=new + 1).logits[:, :-1].float()
                logprobs = torch.log_softmax(logits, -1).gather(-1, part[:, -new:, None]).squeeze(-1)
                ratio = torch.exp(logprobs - logprobs.detach())
                clipped = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
                (-clipped.sum() / (len(rows) * new)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return sampling, steps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["trl", "torch"])
    parser.add_argument("--shape", choices=SHAPES, default="common")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    random.seed(0)

    family, sizes, job = SHAPES[args.shape]
    model = model_of(family, sizes)
    weights = sum(parameter.numel() for parameter in model.parameters())
    with contextlib.redirect_stdout(sys.stderr):
        work = with_trl if args.peer == "trl" else with_torch
        sampling, steps = work(model, sizes["vocab_size"], job, args)
    prompts, group, new, _ = job
    tokens, sample, step = prompts * group * new, statistics.median(sampling[1:]), statistics.median(steps[1:])
    print(json.dumps({
        "threads": args.threads, "parameters": weights, "sample_tokens_per_s": tokens / sample,
        "update_tokens_per_s": tokens / (step - sample), "step_s": step}))


if __name__ == "__main__":
    main()
