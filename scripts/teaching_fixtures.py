"""Makes tests/fixtures/teaching.json again with TRL and transformers, which `tests/it/outside.rs` compares with.

    pip install torch transformers trl
    python scripts/teaching_fixtures.py

What TRL's DistillationTrainer makes of made-up hidden states and output matrices (`_chunked_divergence_loss`), and its
GKD trainer of their logits (`generalized_jsd_loss`); the sampled objective by autograd; what transformers makes of a
padded batch with masked labels on the tiny models of tests/fixtures/models.
"""

import json
from pathlib import Path

import torch
import transformers
import trl
from transformers import AutoModelForCausalLM
from trl.experimental.gkd.gkd_trainer import GKDTrainer
from trl.trainer.distillation_trainer import _chunked_divergence_loss

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures"
BATCH, LENGTH, VOCAB, STUDENT, TEACHER = 2, 7, 40, 6, 9
IGNORED = -100


def flat(tensor):
    return [round(value, 8) for value in tensor.detach().double().flatten().tolist()]


def divergences():
    torch.manual_seed(3)
    student, teacher = (torch.randn(BATCH, LENGTH, width) for width in (STUDENT, TEACHER))
    student_head, teacher_head = (torch.randn(VOCAB, width) for width in (STUDENT, TEACHER))
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    targets = torch.randint(0, VOCAB, (BATCH, LENGTH))
    inputs = dict(student=flat(student), teacher=flat(teacher), student_head=flat(student_head),
                  teacher_head=flat(teacher_head), mask=mask.flatten().tolist(), targets=targets.flatten().tolist(),
                  vocab=VOCAB)
    cases = []
    for beta, temperature in [(1.0, 1.0), (1.0, 0.7), (0.0, 1.0), (0.5, 1.0), (0.1, 1.3), (0.9, 1.0)]:
        h, w = (tensor.clone().requires_grad_() for tensor in (student, student_head))
        loss, _, _ = _chunked_divergence_loss(h, teacher, w, teacher_head, mask, beta, temperature=temperature)
        loss.backward()
        labels = torch.where(mask.bool(), targets, IGNORED)
        gkd = GKDTrainer.generalized_jsd_loss(
            student @ student_head.T, teacher @ teacher_head.T, labels, beta, temperature)
        cases.append(dict(beta=beta, temperature=temperature, loss=loss.item(), gkd=gkd.item(),
                          d_hidden=flat(h.grad), d_head=flat(w.grad)))
    return dict(inputs=inputs, cases=cases, sampled=sampled(student, student_head, teacher, teacher_head, mask, targets))


def sampled(student, student_head, teacher, teacher_head, mask, targets):
    """Thinking Machines' objective on tokens that the student has just sampled: its ratio is 1."""
    h, w = (tensor.clone().requires_grad_() for tensor in (student, student_head))
    of = lambda h, w: torch.log_softmax(h @ w.T, -1).gather(-1, targets[..., None])[..., 0]
    ours, theirs = of(h, w), of(teacher, teacher_head)
    advantage = -(ours - theirs).detach()
    loss = -(torch.exp(ours - ours.detach()) * advantage * mask).sum() / mask.sum()
    loss.backward()
    return dict(loss=loss.item(), d_hidden=flat(h.grad), d_head=flat(w.grad))


def supervised(name):
    """A padded batch: the loss over what is not masked, and gradients of all weights."""
    model = AutoModelForCausalLM.from_pretrained(FIXTURES / "models" / name, dtype=torch.float32).eval()
    samples = [[(5 * i * i + 2 * i + k) % 48 for i in range(n)] for k, n in enumerate((9, 23, 14))]
    trained = [[(4, 9)], [(3, 8), (15, 23)], [(0, 14)]]
    longest = max(map(len, samples))
    ids, labels, mask = (torch.full((len(samples), longest), fill) for fill in (0, IGNORED, 0))
    for row, (sample, ranges) in enumerate(zip(samples, trained)):
        ids[row, : len(sample)] = torch.tensor(sample)
        mask[row, : len(sample)] = 1
        for start, end in ranges:
            labels[row, start:end] = torch.tensor(sample[start:end])
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    gradients = {name: flat(weight.grad) for name, weight in model.named_parameters() if "norm" in name}
    norm = torch.sqrt(sum((weight.grad.double() ** 2).sum() for weight in model.parameters()))
    return dict(samples=samples, trained=trained, loss=loss.item(), grad_norm=norm.item(), gradients=gradients)


def main():
    versions = dict(torch=torch.__version__, transformers=transformers.__version__, trl=trl.__version__)
    models = {name: supervised(name) for name in ("llama", "qwen2", "qwen3")}
    out = dict(versions=versions, divergences=divergences(), supervised=models)
    (FIXTURES / "teaching.json").write_text(json.dumps(out) + "\n")


main()
