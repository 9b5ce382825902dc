"""Speed of TRL's GRPOTrainer on a processor with a mixture of experts, beside which `reckon bench --shape` is measured: the
common job (16 prompts of 16 tokens, 16 completions of 128 tokens each, random weights and rewards) in fp32.

    pip install torch transformers trl datasets accelerate
    python scripts/mixture_speed.py latent|mixture|common [--steps 2] [--threads 2] [--micro 64]

`latent` is DeepSeek-V3's shape, `mixture` Qwen3-MoE's, `common` a dense model's of as many active weights. Prints sampled
tokens a second, the same for the rest of a step, and the seconds of a step: medians without the first step.
"""

import argparse
import os
import random
import statistics
import tempfile
import time

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
import transformers
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from trl import GRPOConfig, GRPOTrainer

PROMPTS, GROUP, PROMPT_TOKENS, NEW_TOKENS = 16, 16, 16, 128
VOCAB = 64
LETTERS = [chr(33 + index) for index in range(VOCAB - 3)]
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 2048, "tie_word_embeddings": True, "bos_token_id": None,
    "eos_token_id": 1, "pad_token_id": 0,
}


def model_of(shape):
    """Random weights of a shape, as `reckon bench` makes it."""
    if shape == "common":
        return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SIZES))
    if shape == "mixture":
        return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(
            **SIZES, head_dim=32, moe_intermediate_size=128, num_experts=9, num_experts_per_tok=3, norm_topk_prob=True))
    return transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(
        **SIZES, moe_intermediate_size=128, first_k_dense_replace=0, n_routed_experts=8, num_experts_per_tok=2,
        n_shared_experts=1, n_group=4, topk_group=2, norm_topk_prob=True, routed_scaling_factor=2.5, q_lora_rank=None,
        kv_lora_rank=48, qk_nope_head_dim=24, qk_rope_head_dim=16, v_head_dim=32))


def tokenizer():
    """A token for each letter."""
    vocab = {"<pad>": 0, "<eos>": 1, "<unk>": 2} | {letter: index + 3 for index, letter in enumerate(LETTERS)}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


class Clock(transformers.TrainerCallback):
    """Seconds of each step."""

    steps: list = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.begun = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(time.perf_counter() - self.begun)


def timed(function, seconds):
    def call(*args, **kwargs):
        begun = time.perf_counter()
        result = function(*args, **kwargs)
        seconds.append(time.perf_counter() - begun)
        return result
    return call


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", choices=["latent", "mixture", "common"])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    random.seed(0)

    rows = PROMPTS * GROUP
    prompts = [{"prompt": "".join(random.choices(LETTERS, k=PROMPT_TOKENS))} for _ in range(512)]
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=args.micro,
        gradient_accumulation_steps=rows // args.micro, num_generations=GROUP, max_completion_length=NEW_TOKENS,
        max_steps=args.steps + 1, learning_rate=1e-4, beta=0.0, temperature=1.0, report_to=[], save_strategy="no",
        use_cpu=True, bf16=False, gradient_checkpointing=False, logging_steps=1, disable_tqdm=True,
        generation_kwargs={"min_new_tokens": NEW_TOKENS})
    clock, sampling = Clock(), []
    reward = lambda completions, **_: [random.random() for _ in completions]
    trainer = GRPOTrainer(
        model=model_of(args.shape), processing_class=tokenizer(), reward_funcs=reward, args=config,
        train_dataset=Dataset.from_list(prompts), callbacks=[clock])
    trainer.model.generate = timed(trainer.model.generate, sampling)
    trainer.train()

    tokens = rows * NEW_TOKENS
    sample, step = statistics.median(sampling[1:]), statistics.median(clock.steps[1:])
    weights = sum(parameter.numel() for parameter in trainer.model.parameters())
    print(f"{args.shape}: {weights} weights, {args.threads} threads: sampling {tokens / sample:.0f} tokens/s, "
          f"the rest {tokens / (step - sample):.0f} tokens/s, a step {step:.3f} s")


if __name__ == "__main__":
    main()
