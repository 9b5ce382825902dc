import json


def same(a, b):
    return json.dumps(a) == json.dumps(b)
