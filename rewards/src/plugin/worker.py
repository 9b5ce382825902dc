"""A worker of the Python plug-ins: reads a call a line, calls the user's function, writes an answer a line.

The host passes `entry.py` and this text to `python3 -c`, with a JSON object that says which function, and in which style
it is called.
"""
import asyncio
import math

NOT_JUDGED = {"outcome": "skipped"}
# What TRL passes by these names is not the row's column.
TRL_NAMES = ("prompt", "prompts", "completion", "completions", "completion_ids")
RETURN = "return a number, a bool, or None for a completion that is not judged"


class Function:
    """The user's function, by the names of its arguments."""

    def __init__(self, config, loop):
        self.name = config["entry"].rpartition(":")[2]
        self.loop = loop
        self.call = load(config["entry"], config["kwargs"])
        try:
            parameters = inspect.signature(self.call).parameters.values()
        except ValueError:  # one that is not written in Python
            parameters = [inspect.Parameter("all", inspect.Parameter.VAR_KEYWORD)]
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self.takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.names = {p.name for p in named}
        self.needed = [p.name for p in named if p.default is p.empty]

    def __call__(self, *given):
        """What the function returns; a coroutine runs to its end on the one loop of the worker."""
        return self.settled(self.call(*given))

    def by_name(self, offered):
        """Calls it with those of the offered arguments that it takes."""
        missing = [name for name in self.needed if name not in offered]
        if missing:
            raise TypeError(f"`{self.name}` wants {', '.join(missing)}, and is offered {', '.join(sorted(offered))}")
        return self.settled(self.call(**{k: v for k, v in offered.items() if self.takes_all or k in self.names}))

    def settled(self, value):
        return self.loop.run_until_complete(value) if inspect.isawaitable(value) else value

    def reward(self, value):
        """A reward, as the host reads it."""
        found = number(value)
        if found is None:
            kind = "a text" if isinstance(item(value), (str, bytes)) else f"of type {type(value).__name__}"
            raise TypeError(f"`{self.name}` returned {shown(value)}, {kind}: {RETURN}")
        if not math.isfinite(found):
            raise ValueError(f"`{self.name}` returned {found}, which is not finite: {RETURN}")
        return found

    def judged(self, value):
        """A verdict of what was returned for one completion."""
        if not isinstance(value, dict):
            return NOT_JUDGED if value is None else {"reward": self.reward(value)}
        if "reward" not in value:
            raise TypeError(f"`{self.name}` returned {shown(value)}, which has no `reward`: {RETURN}, or a dict with it")
        kept = {key: str(value[key]) for key in ("reason", "parsed") if value.get(key) is not None}
        return {**kept, **self.judged(value["reward"])}

    def listed(self, values, batch):
        """What was returned for several completions, one value for each."""
        wanted = f"return a list of {len(batch)}, one reward for each completion"
        if isinstance(values, (str, bytes, dict)) or not hasattr(values, "__iter__"):
            raise TypeError(f"`{self.name}` returned {shown(values)}, which is no list: {wanted}")
        try:
            values = list(values)
        except TypeError:  # an array without a dimension
            raise TypeError(f"`{self.name}` returned {shown(values)}, which is no list: {wanted}") from None
        if len(values) != len(batch):
            raise ValueError(f"`{self.name}` returned {len(values)} rewards for {len(batch)} completions: {wanted}")
        return values

    def judged_list(self, values, batch):
        return [self.judged(value) for value in self.listed(values, batch)]


def plain(function, config):
    def judge(call):
        if "batch" in call:
            return function.judged_list(function(call["batch"]), call["batch"])
        return function.judged(function(call))

    return judge


def is_messages(value):
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) and "role" in m for m in value)


def trl_prompt(row, forced):
    """The prompt as the row has it, a text or messages, unless the config forces either."""
    messages = row.get("messages", [])
    system = [message for message in messages[:1] if message["role"] == "system"]
    given = row["info"].get("prompt")
    if not isinstance(given, str) and not is_messages(given):
        given = messages if len(messages) > len(system) else row["question"]
    if forced is False and not isinstance(given, str):
        return row["question"]
    if forced and isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if is_messages(given):
        given = system + given[given[0]["role"] == "system" :] if system else given
    # An assistant's opening words are the start of the completion.
    return given[:-1] if is_messages(given) and given[-1]["role"] == "assistant" else given


def trl_arguments(batch, config):
    """The arguments of a call: each column of the rows as a list, and what TRL adds."""
    names = {key: None for row in batch for key in row["info"] if key not in TRL_NAMES}
    columns = {key: [row["info"].get(key) for row in batch] for key in names}
    for name in ("question", "answer"):
        columns.setdefault(name, [row[name] for row in batch])
    if config["answer_column"] is not None:
        columns[config["answer_column"]] = [row["answer"] for row in batch]
    prompts = [trl_prompt(row, config["conversational"]) for row in batch]
    completions = [
        row["completion"] if isinstance(prompt, str) else [{"role": "assistant", "content": row["completion"]}]
        for row, prompt in zip(batch, prompts)
    ]
    ids = [row.get("token_ids", []) for row in batch]
    logs = {"log_extra": lambda *_: None, "log_metric": lambda *_: None, "trainer_state": None}
    # Beside TRL's own, as it hands on what a `rollout_func` returns.
    given = {"tool_rewards": [row["rewards"] for row in batch]}
    return {**columns, **logs, **given, "prompts": prompts, "completions": completions, "completion_ids": ids}


def other_form(error, conversational):
    """What to say of an error that comes of texts in place of messages, or the reverse."""
    text = str(error)
    if conversational and isinstance(error, (TypeError, AttributeError)) and ("list" in text or "dict" in text):
        return "prompts and completions were messages, as the rows have them: `conversational = false` gives texts"
    if not conversational and isinstance(error, (TypeError, AttributeError)) and ("string ind" in text or "'str'" in text):
        return "prompts and completions were texts, as the rows have them: `conversational = true` gives messages"
    return None


def trl(function, config):
    def judge_all(batch):
        arguments = trl_arguments(batch, config)
        try:
            values = function.by_name(arguments)
        except Exception as error:
            error.reckon_hint = other_form(error, not isinstance(arguments["prompts"][0], str))
            raise
        return function.judged_list(values, batch)

    def judge_alone(row):
        try:
            return judge_all([row])[0]
        except MemoryError:
            raise
        except Exception as error:
            return {"outcome": "error", "reason": told(error)}

    def judge(call):
        batch = call.get("batch", [call])
        try:
            verdicts = judge_all(batch)
        except Exception as error:
            if isinstance(error, MemoryError) or not config["skip"] or len(batch) == 1:
                raise
            # TRL's functions take lists of any length: those completions are left out over which it fails by itself.
            verdicts = [judge_alone(row) for row in batch]
            if not any(verdict.get("outcome") == "error" for verdict in verdicts):
                raise
        return verdicts if "batch" in call else verdicts[0]

    return judge


def verl(function, config):
    batched = "solution_strs" in function.names  # as verl's batch manager calls it

    def judge(call):
        info = call["info"]
        extra_info = info.get("extra_info")
        if extra_info is None or isinstance(extra_info, dict):
            # Where verl's agent loop puts what its tools gave.
            extra_info = {**(extra_info or {}), "tool_rewards": call["rewards"]}
        reward_model = info["reward_model"] if isinstance(info.get("reward_model"), dict) else {}
        arguments = {
            "data_source": info.get("data_source"),
            "solution_str": call["completion"],
            "ground_truth": reward_model.get("ground_truth", call["answer"]),
            "extra_info": extra_info,
        }
        if batched:
            lists = {name + "s": [argument] for name, argument in arguments.items()}
            value = function.listed(function.by_name(lists), [call])[0]
        else:
            value = function.by_name(arguments)
        if isinstance(value, dict) and "score" not in value:
            raise TypeError(f"`{function.name}` returned {shown(value)}, which has no `score`: {RETURN}")
        return function.judged(value["score"] if isinstance(value, dict) else value)

    return judge


def answer(judge, call, skip):
    try:
        value = judge(call)
        said = {"verdicts": value} if isinstance(value, list) else dict(value)
    except MemoryError:
        os._exit(1)  # the completion broke the worker, which may not be whole any more
    except Exception as error:
        if not skip:  # there may be many, and they are counted
            traceback.print_exc()
        said = {"error": told(error)}
    return {**said, "id": call["id"]}


def prepare(config):
    """The user's function, ready for calls."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # before the user's module makes a lock or a client
    styles = {"plain": plain, "trl": trl, "verl": verl}
    judge = styles[config["style"]](Function(config, loop), config)
    return lambda call: answer(judge, call, config["skip"])


serve(prepare)
