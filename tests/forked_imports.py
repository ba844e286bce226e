"""What run.py imports sooner or later; nothing here may start a thread or read what a run changes."""

import datasets  # noqa: F401
import hydra  # noqa: F401
import torch
import transformers  # noqa: F401

import launch  # noqa: F401
import tasks.kick.talk  # noqa: F401

torch.set_num_threads(1)
