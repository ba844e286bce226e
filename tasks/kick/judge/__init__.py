"""What judges an answer beside the dense parent's: one interface, three back ends."""

from tasks.kick.judge.base import Case, Judge, Score

__all__ = ["Case", "Judge", "Score"]
