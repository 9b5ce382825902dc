"""A worker of kind `command` that does to a completion what the completion says."""
import json
import os
import signal
import subprocess
import sys
import time

print('{"ready": true}', flush=True)
for line in sys.stdin:
    call = json.loads(line)
    answer = json.dumps({"id": call["id"], "reward": 1})
    what = call["completion"]
    if what == "sleeps":
        time.sleep(1000)
    elif what == "ignores SIGTERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(call["question"], "w") as file:
            file.write(str(os.getpid()))
        time.sleep(1000)
    elif what == "leaves a child":
        child = subprocess.Popen(["sleep", "1000"])
        with open(call["question"], "w") as file:
            file.write(str(child.pid))
        os._exit(0)
    elif what == "exits":
        sys.exit(0)
    elif what == "takes 10 GB":
        bytearray(10**10)
    elif what == "prints junk":
        answer = "Traceback: this is not JSON"
    elif what == "answers twice":
        answer += "\n" + answer
    elif what == "answers for another":
        answer = json.dumps({"id": call["id"] + 1000, "reward": 1})
    elif what == "forgets the id":
        answer = '{"reward": 1}'
    elif what == "forgets the reward":
        answer = json.dumps({"id": call["id"], "rewrad": 1})
    elif what == "says NaN":
        answer = '{"id": %d, "reward": NaN}' % call["id"]
    elif what == "is too large":
        answer = '{"id": %d, "reward": 1e300}' % call["id"]
    elif what == "floods":
        answer = "x" * 3_000_000
    elif what == "gives up":
        answer = json.dumps({"id": call["id"], "error": "the database is gone"})
    elif what == "exits once" and not os.path.exists(call["question"]):
        open(call["question"], "w").close()
        sys.exit(1)
    print(answer, flush=True)
