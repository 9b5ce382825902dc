"""Runs of the trainer from Python: records as they come, a stop that saves, and what is read off the disk."""

import subprocess

import pytest
import reckon

SMALL = {
    "steps": 3,
    "eval.problems": 16,
    "rollout.prompts_per_step": 2,
    "rollout.group_size": 4,
    "rollout.max_new_tokens": 48,
    "save.rollouts_every": 1,
    "save.every": 1,
}


def nested(flat):
    """`{"a.b": 1}` as `{"a": {"b": 1}}`."""
    config = {}
    for key, value in flat.items():
        *tables, last = key.split(".")
        table = config
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    return config


def test_the_binary_is_on_the_path_of_the_environment():
    said = subprocess.run([reckon.binary(), "--version"], capture_output=True, text=True).stdout
    assert said == f"reckon {reckon.__version__}\n"


def test_a_run_gives_its_records_and_is_read_off_the_disk(tmp_path):
    out = tmp_path / "run"
    records = list(reckon.train(out=out, overrides=SMALL))
    assert [record["step"] for record in records] == [1, 2, 3]
    run = reckon.Run(out)
    assert run.records == run.metrics() and run.records[1:] == records
    assert run.records[0]["step"] == 0 and "eval/len_mean" in run.records[0]
    assert run.config["optim"]["lr"] == 3e-4 and run.config["rollout"]["group_size"] == 4
    assert list(run.checkpoints)[-1] == 3 and run.checkpoints[3].is_dir()
    assert run.before["accuracy"] >= 0 and run.after is not None
    assert run.rollout_steps == [1, 2, 3]
    rows = run.rollouts()
    assert len(rows) == 3 * 2 * 4 and {row["sample"] for row in rows} == {0, 1, 2, 3}
    assert rows[0]["verdicts"][0]["outcome"] and rows[0]["question"] and rows[0]["tokens"]
    assert rows[0]["rewards"] == [], "no tool gave any"
    with pytest.raises(ValueError, match="no rollouts of step 9"):
        run.rollouts(9)


def test_metrics_are_a_data_frame(tmp_path):
    pytest.importorskip("pandas")
    run = reckon.train(out=tmp_path / "run", overrides={**SMALL, "steps": 2}).wait()
    frame = run.metrics("pandas")
    assert list(frame["step"]) == [0, 1, 2] and "reward/mean" in frame
    with pytest.raises(ValueError, match="arrow"):
        run.metrics("arrow")


def test_a_config_may_be_a_dict_or_a_file(tmp_path):
    config = {
        **nested({**SMALL, "steps": 1}),
        "model": {"path": "builtin:countdown"},
        "data": {"dataset": "countdown"},
        "prompt": {"template": '{question}\n"é" '},
        "rubric": {"mode": "sum", "verifiers": [{"kind": "countdown"}, {"kind": "format", "weight": 0.25}]},
    }
    one = reckon.train(config, out=tmp_path / "one").wait()
    assert one.config["prompt"]["template"] == '{question}\n"é" '
    assert [part["kind"] for part in one.config["rubric"]["verifiers"]] == ["countdown", "format"]
    two = reckon.train(one.folder / "config.toml", out=tmp_path / "two").wait()
    assert two.config == one.config


def test_a_stop_saves_and_the_run_goes_on_where_it_was(tmp_path):
    out = tmp_path / "run"
    with reckon.train(out=out, overrides={**SMALL, "steps": 500, "save.every": 500}) as training:
        first = next(training)
        assert first["step"] == 1 and training.running
    assert not training.running
    saved = list(training.run.checkpoints)[-1]
    assert 1 <= saved < 500
    after = reckon.train(resume=out, overrides={"steps": saved + 2})
    assert [record["step"] for record in after] == [saved + 1, saved + 2]


def test_an_interrupt_saves(tmp_path, monkeypatch):
    training = reckon.train(out=tmp_path / "run", overrides={**SMALL, "steps": 500, "save.every": 500})
    next(training)

    def interrupted():
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(training, "_records", interrupted())
    with pytest.raises(KeyboardInterrupt):
        next(training)
    assert not training.running and training.run.checkpoints


def test_an_error_of_the_binary_is_an_exception_with_its_words(tmp_path):
    with pytest.raises(reckon.TrainingError, match='did you mean "lr"'):
        reckon.train(out=tmp_path / "run", overrides={"optim.lrr": 1.0}).wait()
    with pytest.raises(ValueError, match="leave out"):
        reckon.train("x.toml", resume=tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        reckon.Run(tmp_path)
    with pytest.raises(TypeError, match="set"):
        reckon.train(out=tmp_path / "run", overrides={"steps": {1}})
