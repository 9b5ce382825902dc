"""Reward functions as verl takes them."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    if data_source == "openai/gsm8k":
        return 1.0 if solution_str == ground_truth else 0.1
    return {"score": float(extra_info["index"]), "acc": 0.0}


def batched(data_sources, solution_strs, ground_truths, extra_infos, **kwargs):
    return [{"score": float(said == right)} for said, right in zip(solution_strs, ground_truths)]


def with_kwargs(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    return (solution_str == ground_truth) + bonus


def what_tools_gave(data_source, solution_str, ground_truth, extra_info):
    return sum(extra_info["tool_rewards"]) + extra_info.get("index", 0)


def what_tools_gave_batched(data_sources, solution_strs, ground_truths, extra_infos):
    return [sum(extra_info["tool_rewards"]) for extra_info in extra_infos]
