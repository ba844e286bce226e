"""What the judges of the tests are given."""

from tasks.kick.judge import Case


def case(answer="", **more):
    return Case("a", "chat", "q", ("the quick brown fox",), (answer,), **more)
