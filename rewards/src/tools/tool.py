"""A worker of the Python tools: reads a call a line, calls the user's function or class, writes an answer a line.

The host passes `entry.py` and this text to `python3 -c`, with a JSON object that says which function.
"""
import math


class Tool:
    """The user's tool: a function of the input, or an object with `step` and perhaps `reset`."""

    def __init__(self, config):
        target, self.name = named(config["entry"])
        kwargs = config["kwargs"]
        if inspect.isclass(target):
            target, kwargs = target(**kwargs), {}
        self.has_state = hasattr(target, "step")
        if not self.has_state and not callable(target):
            raise TypeError(f"{self.name} is {shown(target)}: name a function, or a class with `step(state, input)`")
        self.reset = getattr(target, "reset", None) if self.has_state else None
        self.call = target.step if self.has_state else functools.partial(target, **kwargs)

    def answer(self, call):
        """What is said, and the state after it."""
        state, given = call["state"], call["input"]
        if not self.has_state:
            return self.said(self.call(given)), None
        if state is None and self.reset is not None:
            state = self.reset({key: call[key] for key in ("example", "question", "answer", "info")})
        value = self.call(state, given)
        if not isinstance(value, tuple) or len(value) != 2:
            raise TypeError(f"`{self.name}.step` returned {shown(value)}: return the next state and the answer")
        return self.said(value[1]), value[0]

    def said(self, value):
        """What the host is told of an answer: its text, and its reward where it is a dict with one."""
        if not isinstance(value, dict) or "reward" not in value:
            return {"answer": self.text(value)}
        if set(value) != {"answer", "reward"}:
            raise TypeError(f"`{self.name}` returned {shown(value)}: with `reward` go `answer`, the text, and no more")
        reward = value["reward"]
        found = None if reward is None else number(reward)
        if reward is not None and (found is None or not math.isfinite(found)):
            raise ValueError(f"`{self.name}` gave the reward {shown(reward)}: give a finite number, or None for none")
        return {"answer": self.text(value["answer"]), "reward": found}

    def text(self, value):
        return value if isinstance(value, str) else str(value)


def answered(tool, call):
    try:
        said, state = tool.answer(call)
        return {**said, "id": call["id"], "state": state}
    except MemoryError:
        os._exit(1)
    except Exception as error:
        return {"id": call["id"], "error": told(error), "state": call["state"]}


def prepare(config):
    """The user's tool, ready for calls."""
    tool = Tool(config)
    return lambda call: answered(tool, call)


serve(prepare)
