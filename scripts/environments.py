"""Shows that the tool `openenv` speaks with OpenEnv's own server: a game and an echo, written with the classes of the
package `openenv-core` and served by it. Every line is a call and its answer; what is not as expected fails.

    pip install openenv-core uvicorn
    cargo build --release --bin reckon; cargo build --release -p reckon-rewards --example call
    python scripts/environments.py target/release

The server pings every second and closes a connection that does not answer within one. `environments.py serve PORT NAME MOST`
is the server alone, with at most MOST sessions.
"""

import atexit
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def serve(port, name, most):
    import uvicorn
    from fastmcp import FastMCP
    from openenv.core.env_server.http_server import create_fastapi_app
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.mcp_environment import MCPEnvironment
    from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
    from openenv.core.env_server.types import Action, Observation, State

    class Guess(Action):
        guess: int

    class Hint(Observation):
        text: str

    class Game(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self):
            super().__init__()
            self.secret, self.now = None, State()

        def reset(self, seed=None, episode_id=None, most=10, **kwargs):
            self.secret, self.now = random.Random(seed).randrange(most), State()
            return Hint(text=f"a number below {most}")

        def step(self, action, timeout_s=None, **kwargs):
            if action.guess < 0:
                raise RuntimeError("below nothing")
            if action.guess == 99:
                time.sleep(60)
            self.now.step_count += 1
            right = action.guess == self.secret
            text = "yes" if right else "lower" if action.guess > self.secret else "higher"
            return Hint(text=text, reward=float(right), done=right)

        @property
        def state(self):
            return self.now

    class Echo(MCPEnvironment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self):
            server = FastMCP("echo")

            @server.tool
            def echo(message: str) -> str:
                return f"you said {message}"

            super().__init__(server)
            self.now = State()

        def reset(self, seed=None, episode_id=None, **kwargs):
            return Observation()

        def _step_impl(self, action, timeout_s=None, **kwargs):
            raise RuntimeError("an action that calls no tool")

        @property
        def state(self):
            return self.now

    env, action, observation = {"game": (Game, Guess, Hint), "echo": (Echo, CallToolAction, CallToolObservation)}[name]
    app = create_fastapi_app(env, action, observation, max_concurrent_envs=most)
    uvicorn.run(app, port=port, log_level="critical", ws_ping_interval=1, ws_ping_timeout=1)


class Server:
    """A server of one environment, in a process of its own."""

    def __init__(self, name, most):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        self.process = subprocess.Popen([sys.executable, __file__, "serve", str(self.port), name, str(most)])
        atexit.register(self.process.kill)
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        sys.exit(f"the server of {name} did not start")

    def stop(self):
        self.process.kill()
        self.process.wait()


class Completion:
    """Calls of one completion, through the example `call` of the crate `reckon-rewards`."""

    def __init__(self, binaries, url, options):
        self.folder = tempfile.TemporaryDirectory()
        config = Path(self.folder.name) / "tools.toml"
        config.write_text(f'[[tools]]\nkind = "openenv"\nurls = ["{url}"]\n{options}')
        self.process = subprocess.Popen([binaries / "examples/call", config], stdin=-1, stdout=-1, text=True)

    def ask(self, call, expected, rewarded=False):
        """The text of an answer. A call that is rewarded has the reward that its last line shows."""
        print(call, file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        text, reward = answer["text"], answer["reward"]
        print(f"    {call or '(nothing)':20} {text!r}{f', reward {reward}' if rewarded else ''}")
        assert text.startswith(expected), f"{expected!r} was expected"
        assert reward == (float(text.splitlines()[-1]) if rewarded else None), f"not the reward {reward!r}"
        return text

    def end(self):
        self.process.stdin.close()
        assert self.process.wait() == 0


GAME = 'show = ["/observation/text", "/reward"]\ntimeout_s = 2\nopen_s = 2\nreset = {seed = "{seed}", most = 3}\n'
NUMBER = 'action = {guess = "{input}"}\n'


def games(binaries):
    server = Server("game", 1)
    one = Completion(binaries, server.url, GAME + NUMBER)
    print("a game:")
    one.ask("", "a number below 3")
    one.ask("many", "error: Invalid message: guess: Input should be a valid integer")
    one.ask("-1", "error: below nothing (EXECUTION_ERROR)")
    one.ask("3", "lower\n0.0", rewarded=True)
    print("beside it, on a server for one session:")
    other = Completion(binaries, server.url, GAME + NUMBER)
    other.ask("3", "error: no session within 2 s: ")
    time.sleep(6)
    print("six seconds and as many pings later, the first again:")
    one.ask("", "lower\n0.0")
    for guess in range(3):
        said = one.ask(str(guess), ("higher\n0.0", "yes\n1.0"), rewarded=True)
        if said.startswith("yes"):
            break
    one.ask("1", "error: the episode is over")
    one.end()
    print("now there is room for the other, whose calls are JSON:")
    other.end()
    other = Completion(binaries, server.url, GAME)
    other.ask('{"guess": 3}', "lower\n0.0", rewarded=True)
    other.ask('{"guesses": 3}', "error: Invalid message: ")
    print("a step of a minute, then the server is killed:")
    other.ask('{"guess": 99}', "error: no answer within 2 s")
    other.ask('{"guess": 1}', "error: the session is over: no answer within 2 s")
    server.stop()
    other.end()


def echo(binaries):
    server = Server("echo", 4)
    print("an environment whose tools are MCP's:")
    options = 'action = {type = "call_tool", tool_name = "echo", arguments = {message = "{input}"}}\n'
    calls = Completion(binaries, server.url, options + 'show = ["/observation/result/data"]\n')
    calls.ask("hello", "you said hello")
    calls.ask("again", "you said again")
    calls.end()
    server.stop()


RUN = """
steps = 3
model = {path = "builtin:countdown"}
data = {dataset = "countdown"}
compute = {device = "cpu"}
rollout = {prompts_per_step = 4, group_size = 8, max_new_tokens = 48}
eval = {problems = 10, every = 3}
rubric = {mode = "sum", verifiers = [{kind = "environment"}]}
[environment]
call = ["<think>", "</think>"]
answer = ["", ""]
workers = 16
[[environment.tools]]
kind = "openenv"
urls = URLS
action = {guess = "1"}
reset = {seed = "{seed}", most = 2}
show = ["/observation/text"]
"""


def run(binaries):
    """A run whose model thinks: each thought is a call."""
    with tempfile.TemporaryDirectory() as folder:
        servers = [Server("game", 64), Server("game", 64)]
        config, out = Path(folder) / "config.toml", Path(folder) / "run"
        config.write_text(RUN.replace("URLS", json.dumps([server.url for server in servers])))
        subprocess.run([binaries / "reckon", "train", config, "--out", out], check=True, stdout=subprocess.DEVNULL)
        print("a run on two servers:")
        for line in (out / "metrics.jsonl").read_text().splitlines():
            shown = ("policy/mismatch_kl", "reward/mean")
            found = {key: value for key, value in json.loads(line).items() if "tools/" in key or key in shown}
            print("    ", found)
        assert found["tools/calls_mean"] > 0 and found["policy/mismatch_kl"] == 0 and found["reward/mean"] > 0
        for server in servers:
            server.stop()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        folder = Path(sys.argv[1]).absolute()
        games(folder)
        echo(folder)
        run(folder)
