"""Reward functions as TRL takes them, in the forms that its documentation shows."""
import re


def reward_len(completions, **kwargs):
    return [-abs(20 - len(completion)) for completion in completions]


def format_reward(completions, **kwargs):
    pattern = r"^<think>.*?</think><answer>.*?</answer>$"
    completion_contents = [completion[0]["content"] for completion in completions]
    return [1.0 if re.match(pattern, content) else 0.0 for content in completion_contents]


def math_only(prompts, completions, solution, task, **kwargs):
    rewards = []
    for completion, right, kind in zip(completions, solution, task):
        rewards.append((1.0 if completion == right else 0.0) if kind == "math" else None)
    return rewards


async def by_tokens(prompts, completion_ids):
    return [float(len(ids)) for ids in completion_ids]


def asks_for_messages(prompts, completions, **kwargs):
    return [float(p[-1]["role"] == "user" and p[-1]["content"] == "2 + 2?") for p in prompts]


def too_few(completions, **kwargs):
    return [1.0]


def what_tools_gave(completions, tool_rewards):
    return [sum(given) for given in tool_rewards]


def what_tools_gave_among_others(**kwargs):
    return [sum(given) for given in kwargs["tool_rewards"]]
