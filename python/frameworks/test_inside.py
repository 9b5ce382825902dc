"""The adapters inside their frameworks: what is skipped is not installed (scripts/python_frameworks installs them)."""

import asyncio
import json

import pytest


def tiny(folder):
    """A model of random weights with a tokenizer of characters."""
    torch = pytest.importorskip("torch")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    letters = {chr(32 + i): i for i in range(95)} | {"<eos>": 95, "<pad>": 96}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    config = Qwen2Config(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, eos_token_id=95, pad_token_id=96,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def test_three_steps_of_trl_are_rewarded(tmp_path):
    trl = pytest.importorskip("trl")
    from reckon.rewards import Rubric
    from reckon.rewards.trl import reward

    from datasets import Dataset

    model, tokenizer = tiny(tmp_path / "tiny")
    # Any digit in the completion is an answer: random characters hold one often enough to be rewarded now and then.
    digit = {"kind": "regex", "name": "digit", "pattern": "[0-9]", "match": "search", "extract": {"from": "whole"}}
    functions = [reward("math"), reward(Rubric([digit]), name="digit")]
    rows = Dataset.from_list([{"prompt": f"{n}+{n}=", "answer": str(2 * n)} for n in range(1, 9)])
    arguments = trl.GRPOConfig(
        output_dir=str(tmp_path / "out"), max_steps=3, per_device_train_batch_size=8, num_generations=4,
        max_completion_length=16, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", bf16=False,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model=model, reward_funcs=functions, args=arguments, train_dataset=rows, processing_class=tokenizer
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "rewards/digit/mean" in entry]
    assert trainer.state.global_step == 3 and len(logged) == 3
    assert all("rewards/math/mean" in entry for entry in logged)
    assert max(entry["rewards/digit/mean"] for entry in logged) > 0, logged
    print([{key: entry[key] for key in ("rewards/math/mean", "rewards/digit/mean", "reward")} for entry in logged])


def test_a_reward_manager_of_verl_takes_the_function(tmp_path):
    pytest.importorskip("verl")
    pytest.importorskip("tensordict")
    import numpy
    import torch
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
    from verl.trainer.ppo.reward import get_custom_reward_fn

    _, tokenizer = tiny(tmp_path / "tiny")
    custom = {"path": "pkg://reckon.rewards.verl", "name": "compute_score", "reward_kwargs": {"kind": "math"}}
    config = OmegaConf.create({"reward": {"custom_reward_function": custom}})
    function = get_custom_reward_fn(config)

    async def judged(text, ground_truth):
        manager = NaiveRewardManager(config, tokenizer, function)
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        data = DataProto.from_dict(
            tensors={"responses": ids, "attention_mask": torch.ones_like(ids)},
            non_tensors={
                "data_source": numpy.array(["gsm8k"], dtype=object),
                "reward_model": numpy.array([{"ground_truth": ground_truth}], dtype=object),
                "extra_info": numpy.array([{"index": 0}], dtype=object),
            },
        )
        return await manager.run_single(data)

    right = asyncio.run(judged("so #### 42", "42"))
    wrong = asyncio.run(judged("so #### 41", "42"))
    assert right == {"reward_score": 1.0, "reward_extra_info": {"score": 1.0, "acc": True, "pred": "42"}}
    assert (wrong["reward_score"], wrong["reward_extra_info"]["acc"]) == (0.0, False)


def test_a_task_of_verifiers_is_rewarded(tmp_path, monkeypatch):
    vf = pytest.importorskip("verifiers.v1")
    if not hasattr(vf, "TaskData"):
        pytest.skip("this version of verifiers has no tasks with rewards of their config")
    (tmp_path / "mine.py").write_text("import reckon.rewards.verifiers as r\ncorrect = r.reward('math')\n")
    monkeypatch.syspath_prepend(tmp_path)

    class Data(vf.TaskData):
        answer: str

    config = vf.TaskConfig(rewards={"correct": {"fn": "mine:correct", "weight": 2.0}})
    for reply, expected in ((r"\boxed{4}", 2.0), ("five", 0.0)):
        task = vf.Task[Data, vf.State, vf.TaskConfig](Data(idx=0, prompt="2+2?", answer="4"), config)
        trace = vf.Trace.model_construct(rewards={}, metrics={}, root_reply=reply)
        asyncio.run(task.score(trace))
        assert trace.reward == expected, trace.rewards


def test_the_classic_rubric_of_verifiers_takes_the_function():
    vf = pytest.importorskip("verifiers")
    if not hasattr(vf, "Rubric"):
        pytest.skip("this version of verifiers has no Rubric")
    from reckon.rewards.verifiers import classic

    rubric = vf.Rubric(funcs=[classic("math")], weights=[2.0])
    said = [{"role": "assistant", "content": r"\boxed{4}"}]
    state = {
        "prompt": "2+2?",
        "completion": said,
        "answer": "4",
        "info": {},
        "task": "",
        "timing": {},
        "trajectory": [],
    }
    asyncio.run(rubric.score_rollout(state))
    assert state["reward"] == 2.0, json.dumps(state, default=str)


def test_an_evaluation_of_inspect_ai_is_scored(tmp_path):
    pytest.importorskip("inspect_ai")
    from inspect_ai import Task
    from inspect_ai import eval as evaluate
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput
    from inspect_ai.solver import solver
    from reckon.rewards.inspect_ai import reckon_scorer

    said = {"a half?": r"\boxed{\frac{2}{4}}", "three?": "I do not know", "eight or nine?": r"\boxed{9}"}

    @solver
    def says():
        # In place of a model, whose tokens inspect_ai counts with a file that it fetches.
        async def solve(state, generate):
            state.output = ModelOutput.from_content("none", said[state.input_text])
            return state

        return solve

    targets = zip(said, ("1/2", "3", ["8", "9"]))
    samples = [Sample(input=question, target=target) for question, target in targets]
    task = Task(dataset=samples, solver=says(), scorer=reckon_scorer("math"))
    log = evaluate(task, model="mockllm/model", log_dir=str(tmp_path), display="none")[0]
    assert log.status == "success", log.error
    scores = [sample.scores["reckon_scorer"].value for sample in log.samples]
    assert scores == [1.0, 0.0, 1.0]
    assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(2 / 3)
