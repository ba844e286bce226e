"""Drivers for the papers' released code: it is imported from checkouts the user has, none of it is here.

The folder given as reference holds checkouts named as in `REPOSITORIES`. Every driver takes it, a float32
Llama on the CPU and calibration ids (n, T), and leaves a model that can be evaluated. What the code expects
of its time is put back around it: blocks that make their own rotary table, a torch.cuda that does nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.peers.allocation import evopress, welore
from benchmarks.peers.checkout import REPOSITORIES, commit
from benchmarks.peers.lowrank import asvd, strs, svd_llm
from benchmarks.peers.pruning import magnitude, sparsegpt, wanda
from benchmarks.peers.rounding import awq, gptq, hqq, rtn, spqr
from benchmarks.peers.slicing import slicegpt
from benchmarks.peers.structured import flap, wanda_sp

__all__ = ["PEERS", "REPOSITORIES", "commit"]

Peer = Callable[..., Any]  # (reference folder, model, ids, **setting) -> the compressed model
PEERS: Mapping[str, tuple[str, Peer]] = {  # method or allocator -> its reference's folder and driver
    "magnitude": ("wanda", magnitude),
    "wanda": ("wanda", wanda),
    "sparsegpt": ("sparsegpt", sparsegpt),
    "rtn": ("gptq", rtn),
    "gptq": ("gptq", gptq),
    "awq": ("llm-awq", awq),
    "hqq": ("hqq", hqq),
    "spqr": ("SpQR", spqr),
    "slicegpt": ("TransformerCompression", slicegpt),
    "svd_llm": ("SVD-LLM", svd_llm),
    "svd": ("SVD-LLM", svd_llm),
    "asvd": ("ASVD4LLM", asvd),
    "flap": ("FLAP", flap),
    "wanda_sp": ("FLAP", wanda_sp),
    "strs": ("ASVD4LLM", strs),
    "welore": ("WeLore", welore),
    "evopress": ("EvoPress", evopress),
}
