"""Runs the prelude and then the program in one scope, each with its own lines, so that a program may begin with its
docstring and with futures as if it stood alone. The futures of the prelude hold for both."""


def load(files, scope):
    flags = 0
    for file in files:
        with open(file, "rb") as source:
            code = compile(source.read(), file, "exec", flags, True)
        if file != files[-1]:
            import __future__
            known = (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
            flags |= code.co_flags & sum(known)
        exec(code, scope)


