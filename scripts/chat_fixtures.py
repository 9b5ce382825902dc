"""What transformers renders of conversations through the templates in tests/fixtures/chat, for tests/it/parity.rs.

    python scripts/chat_fixtures.py                # needs transformers and jinja2
    python scripts/chat_fixtures.py FOLDER OUT     # the same of other templates, such as published ones
"""

import json
import re
import sys
from datetime import datetime
from pathlib import Path

from transformers.utils import chat_template_utils

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures" / "chat"
DATE = "2026-02-01"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **other):
    return {"role": "assistant", "content": text, **other}


def call(name, id="abcdefghi", **arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(text, id="abcdefghi"):
    return {"role": "tool", "content": text, "tool_call_id": id}


SYSTEM = {"role": "system", "content": "  Count slowly.\n"}
TOOLS = [
    {"type": "function", "function": {
        "name": "add", "description": "Adds \"numbers\", <b>both</b> & more: 'é', 数 🙂.",
        "parameters": {"type": "object", "required": ["a", "b"], "properties": {
            "b": {"type": "number", "minimum": -1.5}, "a": {"type": ["number", "null"], "default": None, "exact": True},
            "none": {}, "list": []}}}},
    {"type": "function", "function": {"name": "now", "parameters": {}}},
]
NUMBERS = dict(a=1, b=2.5, c="x\"y\u007f", small=1e-07, large=1e22, whole=3.0, list=[True, None, -0.5])
ASKED = dict(add_generation_prompt=True)
CONVERSATIONS = [
    dict(messages=[user("What is 1 + 1?")], **ASKED),
    dict(messages=[SYSTEM, user(" a \n"), assistant("b"), user("c")], **ASKED),
    dict(messages=[user("hi"), assistant("<think>\nhm\n\nyes</think>\n\nhello"), user("and?"),
                   assistant("<think>\nso\n</think>\n\nthat")]),
    dict(messages=[user("hi"), assistant("hello", reasoning_content="\nwhy\n")]),
    dict(messages=[SYSTEM, user("1 + 2?"), assistant("", tool_calls=[call("add", **NUMBERS)]), result("3.5")],
         tools=TOOLS, **ASKED),
    dict(messages=[user("twice"), assistant("both", tool_calls=[call("add", a=True, b=None), call("now", "ABCDEFGHI")]),
                   result("1"), result("2", "ABCDEFGHI"), assistant("done")], tools=TOOLS),
    dict(messages=[user("hi"), assistant("hello", reasoning="why"), user("and?"), assistant("so", thinking="hm")]),
    dict(messages=[user("1 + 2?"), assistant(None, tool_calls=[call("add", a=1)]), result('{"is": 3}')], tools=TOOLS,
         **ASKED),
    dict(messages=[user("q")], variables={"enable_thinking": False}, **ASKED),
    dict(messages=[SYSTEM, user("q")], variables={"enable_thinking": True, "date_string": "26 Jul 2024"}, **ASKED),
    dict(messages=[user("find it"), assistant("", tool_calls=[call("search", query="x", place="y z")]),
                   {"role": "ipython", "content": {"found": [1, "two", None, 1e-05]}}],
         variables={"builtin_tools": ["search", "code_interpreter", "solve"]}),
    dict(messages=[user("ünïcode 数 <&>\"'"), {"role": "stranger", "content": "x"}, user("<result>5</result>")]),
    dict(messages=[SYSTEM, user("q"), assistant("It is")], unfinished=True),
    dict(messages=[user("q"), assistant("a"), user("r"), assistant("  Let me see: \n")], unfinished=True),
]


class Then(datetime):
    """The day on which the templates that print one are rendered."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(DATE)


def render(template, conversation):
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[json.loads(json.dumps(conversation["messages"]))], tools=conversation.get("tools"),
            chat_template=template, add_generation_prompt=conversation.get("add_generation_prompt", False),
            continue_final_message=conversation.get("unfinished", False), **TOKENS, **conversation.get("variables", {}),
        )
    except Exception as error:
        return {"error": str(error)}
    return {"text": rendered[0]}


def main(folder=FIXTURES, out=FIXTURES / "expected.json"):
    chat_template_utils.datetime = Then
    templates = sorted(Path(folder).glob("*.jinja"))
    rendered = {t.stem: [render(t.read_text(), c) for c in CONVERSATIONS] for t in templates}
    chat = {"date": DATE, "conversations": CONVERSATIONS, "rendered": rendered}
    text = json.dumps(chat, indent=1, ensure_ascii=False)
    Path(out).write_text(re.sub(r"\n {3,}", " ", text) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
