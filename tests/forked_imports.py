"""What run.py imports sooner or later; nothing here may start a thread or read what a run changes."""

import datasets  # noqa: F401
import hydra  # noqa: F401
import lm_eval.evaluator
import lm_eval.models.huggingface  # noqa: F401
import torch
from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: F401

import analysis.finish
import analysis.pareto  # noqa: F401
import crunchmark.pipeline  # noqa: F401
import launch  # noqa: F401
import tasks.fidelity
import tasks.kick.talk
import tasks.lm
import tasks.ppl  # noqa: F401

torch.set_num_threads(1)
