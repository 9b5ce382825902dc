"""What can go wrong with a verifier. A wrong, unreadable or hostile completion is none of it: that is a verdict."""


class VerifierError(Exception):
    """A verifier or an example is broken, so that no reward can be trusted."""


class ConfigError(VerifierError, ValueError):
    """The options make no sense; the message names the offending one."""


class ExampleError(VerifierError, ValueError):
    """The row cannot be judged by this verifier, whatever the completion: a reference that cannot be read, say."""


class InfraError(VerifierError, RuntimeError):
    """The machinery failed: a worker that does not start, a sandbox that this machine lacks. No reward was given."""
