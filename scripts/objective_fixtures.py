"""Makes tests/fixtures/objectives.json again: what verl and TRL say of the same made-up completions.

    pip install verl==0.9.1 trl==1.16.0
    python scripts/objective_fixtures.py

Twelve completions in three groups, of 1 to 40 tokens, with ties, a group of equal rewards, and log-probabilities now,
before the step, at sampling and by a reference; everything is computed in f64 from numbers that f32 holds. For each case
the file has the keys of `[grpo]` that mean the same here, and the peer's loss with its gradient by token, its advantages
by token, or its weights. What stands inside a long method of TRL is taken out of its source by its place in the syntax
tree, with its epsilon of 1e-4 set to ours of 1e-6. Where no peer has an objective, `enumeration` counts it out.
"""

import ast
import inspect
import itertools
import json
import math
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from omegaconf import OmegaConf
from trl.trainer import grpo_trainer, rloo_trainer
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo import core_algos, rollout_corr_helper
from verl.workers.config import ActorConfig

OUT = Path(__file__).parent.parent / "tests" / "fixtures" / "objectives.json"
LENGTHS = [1, 40, 7, 12, 5, 5, 23, 2, 9, 31, 16, 3]
GROUP = 4
REWARDS = [1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.0, 0.25, 1.0, 0.25]
PARTS = [[1, 0], [0, 0], [0, 1], [1, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0, 0], [1, 0], [1, 1], [1, 0]]
WEIGHTS = [1.0, 0.5]
GREEDY = [0.5, 0.25, 1.0]
MASKED = 6
KL_COEF = 0.1

torch.set_default_dtype(torch.float64)
torch.manual_seed(7)
B, T = len(LENGTHS), max(LENGTHS)
WHOLE = torch.tensor([[float(t < length) for t in range(T)] for length in LENGTHS])
HOLED = WHOLE * torch.tensor([[float(i != MASKED)] for i in range(B)])
INDEX = np.array([str(i // GROUP) for i in range(B)])


def f32(values):
    return values.float().double()


def moved(logprobs, by):
    return f32(torch.clamp(logprobs + by * torch.randn(B, T), max=-1e-3))


LOGITS = 2 * torch.randn(B, T, 11)
OLD = f32(torch.log_softmax(LOGITS, -1)[..., 0])
NOW, ROLLOUT, REF = moved(OLD, 0.4), moved(OLD, 0.3), moved(OLD, 0.3)
ENTROPIES = f32(torch.distributions.Categorical(logits=LOGITS).entropy())
# One of a few tokens far away, so that every bound is met.
NOW[1, 3], NOW[9, 5], NOW[2, 2] = OLD[1, 3] + 1.25, OLD[9, 5] - 3.0, OLD[2, 2] - 0.75
ROLLOUT[3, 1], ROLLOUT[8, 0] = OLD[3, 1] - 2.0, OLD[8, 0] + 1.0
NOW, ROLLOUT = f32(torch.clamp(NOW, max=-1e-3)), f32(torch.clamp(ROLLOUT, max=-1e-3))
# Such as a critic would give: they differ from token to token.
TOKEN_ADVANTAGES = f32(torch.randn(B, T))


def rows(values, mask=WHOLE):
    """A tensor (B, T), (B, 1) or (B,) as lists without padding."""
    values = values.detach()
    values = values.unsqueeze(1) if values.dim() == 1 else values
    values = values.expand(B, T)
    return [[float(f"{x:.9g}") for x in values[i, : LENGTHS[i]].tolist()] for i in range(B)]


def at_the_end(rewards):
    return torch.stack([rewards[i] * (torch.arange(T) == LENGTHS[i] - 1) for i in range(B)])


def grpo_advantages():
    scores = at_the_end(torch.tensor(REWARDS))
    return f32(core_algos.compute_grpo_outcome_advantage(scores, WHOLE, INDEX)[0])


ADVANTAGES = grpo_advantages()


def actor(**keys):
    policy = {key: keys.pop(key) for key in list(keys) if key.startswith(("clip_cov", "kl_cov", "ppo_kl"))}
    policy = SimpleNamespace(**{"clip_cov_ratio": None, "clip_cov_lb": None, "clip_cov_ub": None, "kl_cov_ratio": None,
                                "ppo_kl_coef": None, **policy})
    found = object.__new__(ActorConfig)
    values = {"clip_ratio": 0.2, "clip_ratio_low": None, "clip_ratio_high": None, "tau_pos": 1.0, "tau_neg": 1.05,
              "clip_ratio_c": 1e9, "global_batch_info": {}, "policy_loss": policy, **keys}
    for key, value in values.items():
        object.__setattr__(found, key, value)
    object.__setattr__(found, "get", lambda key, default=None: values.get(key, default))
    return found


def with_gradient(loss_of):
    now, entropies = NOW.clone().requires_grad_(), ENTROPIES.clone().requires_grad_()
    loss = loss_of(now, entropies)
    loss.backward()
    found = {"loss": float(f"{loss.item():.9g}"), "gradient": rows(now.grad)}
    if entropies.grad is not None:
        found["entropy_gradient"] = rows(entropies.grad)
    return found


CASES = []


def case(name, peer, grpo, **found):
    CASES.append({"name": name, "peer": peer, "grpo": grpo, **found})


def verl(name, mode, grpo, advantages="sample", aggregate="token-mean", kl=None, **keys):
    def loss_of(now, _):
        values = ADVANTAGES if advantages == "sample" else TOKEN_ADVANTAGES
        loss = core_algos.get_policy_loss_fn(mode)(OLD, now, values, HOLED, aggregate, actor(**keys))[0]
        if kl:
            terms = core_algos.kl_penalty(now, REF, kl)
            loss = loss + KL_COEF * core_algos.agg_loss(terms, HOLED, aggregate)
        return loss

    case(name, f"verl {mode}", grpo, masked=True, advantages=advantages, **with_gradient(loss_of))


def trl(name, loss_type, grpo, module=grpo_trainer, **keys):
    args = {"delta": None, "use_bias_correction_kl": False, "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05}
    own = {key: keys.pop(key) for key in list(keys) if key in args}
    entropy = keys.pop("entropy_coef", 0.0)

    def loss_of(now, entropies):
        trainer = SimpleNamespace(
            loss_type=loss_type, epsilon_low=0.2, epsilon_high=0.28, beta=0.0, importance_sampling_level="token",
            top_entropy_quantile=1.0, aux_loss_enabled=False, off_policy_mask_threshold=None, use_vllm=False,
            vllm_importance_sampling_correction=False, current_gradient_accumulation_steps=1,
            max_completion_length=T, _entropy_bonus_enabled=entropy > 0, use_adaptive_entropy=False,
            entropy_coef=entropy, args=SimpleNamespace(**{**args, **own, "steps_per_generation": 1}),
            model=SimpleNamespace(training=True), _get_per_token_logps_and_entropies=lambda *_, **__: (now, entropies, None),
            accelerator=SimpleNamespace(num_processes=1, sync_gradients=True, gather=lambda x: x, reduce=lambda x, **_: x),
            _metrics=Forgetful(),
        )
        for key, value in keys.items():
            setattr(trainer, key, value)
        ids = torch.zeros(B, T, dtype=torch.long)
        inputs = {"prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids, "completion_mask": WHOLE,
                  "advantages": ADVANTAGES[:, 0], "old_per_token_logps": OLD, "ref_per_token_logps": REF,
                  "old_logps": (OLD * WHOLE).sum(1), "num_items_in_batch": WHOLE.sum()}
        kind = module.GRPOTrainer if module is grpo_trainer else module.RLOOTrainer
        return kind._compute_loss(trainer, None, inputs)

    which = "RLOO" if module is rloo_trainer else loss_type
    case(name, f"TRL {which}", grpo, masked=False, advantages="sample", **with_gradient(loss_of))


class Forgetful(dict):
    """Metrics, which nobody asks for."""

    def __missing__(self, _):
        return Forgetful()

    def append(self, _):
        pass


def losses():
    low_high = {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28}
    keys = "clip_high = 0.28"
    verl("clip, token_mean", "vanilla", keys, **low_high)
    verl("clip, sequence_mean", "vanilla", f"{keys}\nloss_weights = 'sequence_mean'", aggregate="seq-mean-token-mean", **low_high)
    verl("clip, constant", "vanilla", f"{keys}\nloss_weights = 'constant'\nconstant_length = {T}",
         aggregate="seq-mean-token-sum-norm", **low_high)
    verl("dual clip", "vanilla", f"{keys}\ndual_clip = 1.5", clip_ratio_c=1.5, **low_high)
    verl("GSPO-token", "gspo", f"{keys}\nratio = 'sequence_token'\nloss_weights = 'sequence_mean'",
         aggregate="seq-mean-token-mean", **low_high)
    verl("GSPO-token, advantages by token", "gspo", "ratio = 'sequence_token'\nclip_low = 0.01\nclip_high = 0.02",
         advantages="token", clip_ratio_low=0.01, clip_ratio_high=0.02)
    verl("CISPO", "cispo", "objective = 'cispo'\nclip_low = 0.2\nclip_high = 0.28", **low_high)
    verl("SAPO", "sapo", "objective = 'sapo'\nloss_weights = 'sequence_mean'")
    verl("REINFORCE, GPG", "gpg", "objective = 'reinforce'")
    for kind, bound in [("tv", 0.05), ("kl", 0.01)]:
        verl(f"DPPO {kind.upper()}", f"dppo_{kind}",
             f"objective = 'dppo_{kind}'\ndivergence_low = {bound}\ndivergence_high = {bound}\nweight_max = 1.5",
             advantages="token", clip_ratio=bound, clip_ratio_c=1.5)
    verl("Clip-Cov", "clip_cov",
         "objective = 'clip_cov'\ncovariance_share = 1.0\ncovariance_low = 0.2\ncovariance_high = 1.5",
         clip_cov_ratio=1.0, clip_cov_lb=0.2, clip_cov_ub=1.5)
    verl("KL-Cov", "kl_cov", "objective = 'kl_cov'\ncovariance_share = 0.1\ncovariance_kl = 0.5", kl_cov_ratio=0.1,
         ppo_kl_coef=0.5)
    for kl in ["k1", "k2", "k3"]:
        verl(f"KL term {kl}", "vanilla", f"{keys}\nkl_coef = {KL_COEF}\nkl_estimator = '{kl}'", kl=kl, **low_high)
    trl("clip, sequence_mean", "grpo", f"{keys}\nloss_weights = 'sequence_mean'")
    trl("clip, token_mean", "dapo", keys)
    trl("clip, constant", "dr_grpo", f"{keys}\nloss_weights = 'constant'\nconstant_length = {T}")
    trl("KL term k3", "grpo", f"{keys}\nloss_weights = 'sequence_mean'\nkl_coef = {KL_COEF}", beta=KL_COEF)
    trl("dual clip", "grpo", f"{keys}\ndual_clip = 1.5\nloss_weights = 'sequence_mean'", delta=1.5)
    trl("GSPO", "grpo", f"{keys}\nratio = 'sequence'\nloss_weights = 'sequence_mean'",
        importance_sampling_level="sequence")
    trl("CISPO", "cispo", "objective = 'cispo'\nclip_low = 1.0\nclip_high = 0.5", epsilon_high=1.5)
    trl("SAPO", "sapo", "objective = 'sapo'\nloss_weights = 'sequence_mean'")
    trl("product of ratios", "", f"{keys}\nratio = 'product'\nloss_weights = 'sequence_mean'", module=rloo_trainer)
    trl("entropy bonus", "dapo", f"{keys}\nentropy_coef = 0.05", entropy_coef=0.05)


def advantages():
    rewards = torch.tensor(REWARDS)
    scores, config = at_the_end(rewards), OmegaConf.create({"norm_adv_by_std_in_grpo": False, "gamma": 1.0})

    def add(name, peer, grpo, values, **more):
        case(name, peer, grpo, values=rows(values), **more)

    def of_verl(name, estimator, grpo, *rest, scores=scores, **more):
        values = core_algos.get_adv_estimator_fn(estimator)(scores.clone(), *rest, **more)[0]
        add(name, f"verl {estimator}", grpo, values)

    of_verl("mean_std", "grpo", "advantage = 'mean_std'", WHOLE, INDEX)
    of_verl("mean", "grpo", "advantage = 'mean'", WHOLE, INDEX, norm_adv_by_std_in_grpo=False)
    of_verl("leave_one_out", "rloo", "advantage = 'leave_one_out'", WHOLE, INDEX)
    of_verl("length_weighted", "opo", "advantage = 'length_weighted'", WHOLE, INDEX)
    greedy = torch.tensor([GREEDY[i // GROUP] for i in range(B)])
    of_verl("greedy", "remax", "advantage = 'greedy'\ndrop_zero_signal = false", greedy, WHOLE)
    # verl's factor is the number of completions by that of rewards that are not 0: here 1.
    of_verl("mean, GPG", "gpg", "advantage = 'mean'", WHOLE, INDEX, scores=at_the_end(rewards + 1))
    of_verl("max_at_k", "grpo_passk", "advantage = 'max_at_k'", WHOLE, INDEX, config=config)
    in_reward = f"kl_coef = {KL_COEF}\nkl_estimator = 'k1'\nkl_place = 'reward'"
    penalised = core_algos.compute_rewards(scores, OLD, REF, KL_COEF) * WHOLE
    of_verl("whitened, KL in the reward", "reinforce_plus_plus",
            f"advantage = 'whitened'\ndrop_zero_signal = false\n{in_reward}", WHOLE, config, scores=penalised)
    of_verl("whitened", "reinforce_plus_plus", "advantage = 'whitened'\ndrop_zero_signal = false", WHOLE, config)
    of_verl("mean, KL in the reward", "grpo", f"advantage = 'mean'\n{in_reward}", WHOLE, INDEX, scores=penalised,
            norm_adv_by_std_in_grpo=False)
    of_verl("group_whitened", "reinforce_plus_plus_baseline", "advantage = 'group_whitened'", WHOLE, INDEX)
    add("batch_std", "TRL scale_rewards = batch", "advantage = 'batch_std'",
        trl_advantages(rewards.unsqueeze(1), torch.ones(1), "sum_then_normalize", "batch"))
    add("decoupled", "TRL normalize_then_sum", "advantage = 'decoupled'\ndrop_zero_signal = false",
        trl_advantages(torch.tensor(PARTS).double(), torch.tensor(WEIGHTS), "normalize_then_sum", "group"))
    add("pass_at_k", "enumeration", "advantage = 'pass_at_k'\npass_k = 2", by_enumeration(pass_at_k), rewards="right")
    add("max_rl", "enumeration", "advantage = 'max_rl'", by_enumeration(max_rl), rewards="right")


def method_part(kind, method, has):
    """The first `if` of a method whose condition `has` says."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(kind, method))))
    class Ours(ast.NodeTransformer):
        def visit_Constant(self, node):
            return ast.copy_location(ast.Constant(1e-6), node) if node.value == 1e-4 else node
    found = next(node for node in ast.walk(tree) if isinstance(node, ast.If) and has(ast.unparse(node)))
    return compile(ast.fix_missing_locations(ast.Module([Ours().visit(found)], [])), method, "exec")


def trl_advantages(rewards_per_func, weights, aggregation, scale):
    part = method_part(grpo_trainer.GRPOTrainer, "_generate_and_score_completions",
                       lambda text: text.startswith("if self.multi_objective_aggregation == 'sum_then_normalize'"))
    own = SimpleNamespace(multi_objective_aggregation=aggregation, scale_rewards=scale, reward_weights=weights,
                          reward_funcs=[None] * rewards_per_func.shape[1])
    scope = {**vars(grpo_trainer), "self": own, "rewards_per_func": rewards_per_func, "num_generations": GROUP,
             "device": "cpu", "unscorable_mask": torch.zeros(B, dtype=torch.bool)}
    exec(part, scope)
    return scope["advantages"]


RIGHT = [1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 0]


def by_enumeration(advantage):
    groups = [RIGHT[start:start + GROUP] for start in range(0, B, GROUP)]
    return torch.tensor([float(advantage(group, i)) for group in groups for i in range(GROUP)])


def pass_at_k(group, i, k=2):
    """Of all choices of k: their mean passes, that of those with completion i, over the deviation of all."""
    choices = list(itertools.combinations(range(GROUP), k))
    passes = [any(group[j] for j in choice) for choice in choices]
    mean = sum(passes) / len(passes)
    own = [passed for choice, passed in zip(choices, passes) if i in choice]
    deviation = math.sqrt(mean * (1 - mean))
    return (sum(own) / len(own) - mean) / deviation if deviation else 0


def max_rl(group, i):
    """The slope of ln(pass rate) along a completion's score: 1 / successes for a success, less 1 / N, times N."""
    successes = sum(group)
    return (GROUP * group[i] / successes - 1) if successes else 0


def corrections():
    log_ratio = OLD - ROLLOUT

    def of_verl(name, grpo, level, threshold):
        weights = rollout_corr_helper.compute_rollout_correction_weights(log_ratio, WHOLE, level, threshold)[0]
        case(name, f"verl rollout_is = {level}", f"correction = '{grpo[0]}'\n{grpo[1]}", weights=rows(weights))

    of_verl("truncate_tokens", ("truncate_tokens", "correction_high = 1.25"), "token", 1.25)
    of_verl("mask_tokens", ("mask_tokens", "correction_low = 0.75\ncorrection_high = 1.25"), "token", "0.75_1.25")
    of_verl("truncate_sequences", ("truncate_sequences", "correction_high = 1.25"), "sequence", 1.25)
    of_verl("mask_sequences", ("mask_sequences", "correction_low = 0.5\ncorrection_high = 2.5"), "sequence", "0.5_2.5")
    part = method_part(grpo_trainer.GRPOTrainer, "_generate_and_score_completions",
                       lambda text: text.startswith("if self.use_vllm and self.vllm_importance_sampling_correction:\n    mask ="))
    for mode, ours, low in [("token_truncate", "truncate_tokens", None), ("token_mask", "mask_tokens", 0.75),
                            ("sequence_truncate", "truncate_sequences", None), ("sequence_mask", "mask_sequences", 0.5)]:
        own = SimpleNamespace(use_vllm=True, vllm_importance_sampling_correction=True, vllm_importance_sampling_mode=mode,
                              vllm_importance_sampling_clip_min=low, vllm_importance_sampling_clip_max=1.5)
        scope = {**vars(grpo_trainer), "self": own, "completion_mask": WHOLE, "tool_mask": None,
                 "old_per_token_logps": OLD, "sampling_per_token_logps": ROLLOUT}
        exec(part, scope)
        bounds = "correction_high = 1.5" + (f"\ncorrection_low = {low}" if low else "")
        case(ours, f"TRL {mode}", f"correction = '{ours}'\n{bounds}", weights=rows(scope["vllm_importance_sampling_ratio"]))
    for ours, theirs, bound, threshold in [("mean_ratio", "seq_mean_k1", 1.1, f"{1 / 1.1}_1.1"),
                                           ("mean_kl", "seq_mean_k3", 0.05, 0.05), ("max_kl", "seq_max_k3", 0.3, 0.3)]:
        mask = rollout_corr_helper.compute_rollout_rejection_mask(log_ratio, WHOLE, theirs, threshold)[0]
        kept = [bool(mask[i].sum() > 0) for i in range(B)]
        assert any(kept) and not all(kept), (ours, kept)
        case(ours, f"verl rollout_rs = {theirs}",
             f"correction = 'recompute'\nreject = '{ours}'\nreject_bound = {bound}", kept=kept)


losses()
advantages()
corrections()
batch = {
    "group": GROUP, "masked": MASKED, "rewards": REWARDS, "right": RIGHT, "parts": PARTS, "weights": WEIGHTS,
    "greedy": GREEDY, "advantages": rows(ADVANTAGES), "token_advantages": rows(TOKEN_ADVANTAGES),
    "now": rows(NOW), "old": rows(OLD), "rollout": rows(ROLLOUT), "reference": rows(REF), "entropies": rows(ENTROPIES),
}
text = ",\n".join(json.dumps(found) for found in CASES)
OUT.write_text('{"batch": ' + json.dumps(batch) + ',\n"cases": [\n' + text + "\n]}\n")
print(f"{len(CASES)} cases in {OUT.name}, {OUT.stat().st_size} bytes")
