"""The compressed model on disk: one safetensors file and a JSON manifest that says what every tensor is."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, GenerationConfig

from crunchmark.bare import bare
from crunchmark.execution import equip
from crunchmark.files import write_json
from crunchmark.machine import trim
from crunchmark.tensorfile import damaged, save
from crunchmark.tensorfile import load as read
from crunchmark.terms import Dense, Term, check_finite, unpack
from crunchmark.view import Site, View

FORMAT, VERSION = "crunchmark-artifact", 1
WEIGHTS, MANIFEST = "weights.safetensors", "manifest.json"
MADE = "made.json"  # beside the artifact, not of it: what differs between two makings of the same bytes
GENERATED = ("transformers_version", "_from_model_config")  # said of the file, not of how to generate


def write(
    folder: Path, view: View, terms: Mapping[str, Term], dtype: torch.dtype, about: Mapping[str, Any]
) -> None:
    """Write weights and manifest.

    terms: stand-ins by site name; every other tensor is stored as it is, reals in `dtype`.
    about: JSON facts for the manifest (plan, model fingerprint, method).
    """
    edits = list(getattr(view.model, "crunchmark_edits", []))
    tensors: dict[str, Tensor] = {}
    layers: dict[str, Any] = {}
    for name, term in terms.items():
        packed, meta = term.pack()
        layers[name] = {"meta": meta, "tensors": {k: f"{name}::{k}" for k in packed}}
        if term.notes:
            layers[name]["notes"] = dict(term.notes)
        tensors |= {f"{name}::{k}": t.contiguous() for k, t in packed.items()}
    rest = _rest(view, set(terms), dtype)
    tensors |= rest
    save(tensors, folder / WEIGHTS)
    sites = {f"{name}.weight" for name in view.layers()} | set(view.added())
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "config": view.model.config.to_dict(),
        "edits": edits,
        **_generation(view.model),
        "layers": layers,
        "tensors": {k: [list(t.shape), str(t.dtype).removeprefix("torch.")] for k, t in tensors.items()},
        "sha256": _sha256(folder / WEIGHTS),
        "scope_bytes": sum(_size(t) for k, t in tensors.items() if "::" in k or k in sites),
        "model_bytes": sum(_size(t) for t in tensors.values()),
        "about": dict(about),
    }
    write_json(folder / MANIFEST, manifest)


def _generation(model: Any) -> dict[str, Any]:
    """How the checkpoint says to generate (stop tokens of a chat model), where its config does not."""
    told = model.generation_config.to_diff_dict()
    known = GenerationConfig.from_model_config(model.config).to_diff_dict()
    own = {k: v for k, v in told.items() if k not in GENERATED and known.get(k) != v}
    return {"generation": own} if own else {}


def _rest(view: View, done: set[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """Every tensor no term stands for; tied ones once."""
    rest: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in _own(view).items():
        if name.removesuffix(".weight") in done or tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        rest[name] = tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor.contiguous()
    check_finite("rounding", rest.items(), dtype)
    return rest


def _own(view: View) -> dict[str, Tensor]:
    """The model's tensors, its biases without what terms add to them."""
    biases = {f"{site.name}.bias": site.own_bias for site in view.all_sites()}
    state = {**view.model.state_dict(), **biases}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of the scope and of all tensors as written, and of the files on disk."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    files = sum((folder / name).stat().st_size for name in (WEIGHTS, MANIFEST))
    return {
        "scope_bytes": manifest["scope_bytes"],
        "model_bytes": manifest["model_bytes"],
        "file_bytes": files,
    }


def spent(manifest: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Bytes of the scope by layer and by what they hold: codes, scale, mask, values, weight, ...

    What no layer of the original model owns, such as shortcuts, is under the name of "".
    """
    found: dict[str, dict[str, int]] = {}
    layers = manifest["about"]["plan"]["rooms"]
    for name, (shape, dtype) in manifest["tensors"].items():
        layer, _, part = name.partition("::") if "::" in name else name.rpartition(".")
        if "::" in name or (layer in layers and part == "weight"):
            parts = found.setdefault(layer, {})
            last = part.rpartition(".")[2]  # of a join: 0.codes
            parts[last] = parts.get(last, 0) + math.prod(shape) * getattr(torch, dtype).itemsize
    rest = manifest["scope_bytes"] - sum(sum(parts.values()) for parts in found.values())
    return found | ({"": {"added": rest}} if rest else {})


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, checked.

    Raises:
        ValueError: it is missing or no artifact's, its version is unknown, or the weights' hash is another.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise damaged(folder / MANIFEST, error) from None
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{folder}: format={manifest.get('format')!r}; valid: {FORMAT!r}")
    if manifest.get("version") != VERSION:
        raise ValueError(f"{folder}: version={manifest.get('version')!r} is unknown; valid: {VERSION}")
    try:
        found = _sha256(folder / WEIGHTS)
    except OSError as error:
        raise damaged(folder / WEIGHTS, error) from None
    if found != manifest["sha256"]:
        raise ValueError(
            f"{folder}: sha256 of {WEIGHTS} is {found[:12]}; the manifest says {manifest['sha256'][:12]}; "
            "delete the folder if it is the cache's: it is made again"
        )
    return manifest


def load(
    path: Path | str,
    packed: bool = True,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Any:
    """The compressed model, in eval mode; never needs more memory than it keeps and the one layer in hand.

    packed: True runs the terms, by kernels where the device has them for the dtype; False puts each term's
        dense weight into the ordinary linear.
    dtype: what it computes in.
    device: where it goes; a model moved later leaves its kernels behind.

    Raises:
        ValueError: version, hash, shape or dtype is not what the manifest says; names the field.
    """
    folder, device = Path(path), torch.device(device)
    manifest = read_manifest(folder)
    rest = _checked(folder, manifest)
    config = dict(manifest["config"])
    config = AutoConfig.for_model(config.pop("model_type"), **config)
    model = bare(config, dtype, manifest["edits"])
    missing, unexpected = _fill(model, folder / WEIGHTS, rest, device)
    model.tie_weights()
    model.generation_config.update(**manifest.get("generation", {}))
    view = View(model)
    sites = {site.name: site for site in view.all_sites()}
    for name, term in terms_of(folder, manifest):
        if term.shape != sites[name].shape:
            raise ValueError(
                f"{folder}: layers.{name} has shape {term.shape}; the model's is {sites[name].shape}"
            )
        # a dense term has nothing to run but a linear layer, which needs no cast at every call
        _install(sites[name], term, packed and not isinstance(term, Dense), device)
        equip(sites[name].module, device, dtype)
        trim()  # else what one layer leaves is too small or in the way for the next
    left = [m for m in missing if m.removesuffix(".weight") not in manifest["layers"] and not _tied(model, m)]
    if unexpected or left:
        raise ValueError(
            f"{folder}: tensors do not fit the model; missing {left}, unexpected {list(unexpected)}"
        )
    return model.to(device).eval()


def _checked(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Names of the tensors no term is made of; shapes and dtypes of all are the manifest's."""
    tensors = read(folder / WEIGHTS)
    for name, (shape, stored) in manifest["tensors"].items():
        _check(folder, name, tensors.get(name), shape, stored)
    return [name for name in tensors if "::" not in name]


def _fill(model: Any, path: Path, names: Sequence[str], device: torch.device) -> Any:
    """Give the bare model these tensors, one by one; which it misses, and which it does not know."""
    own, found = model.state_dict(), {}
    for name in names:
        tensor = read(path, [name])[name]
        found[name] = tensor.to(device, own[name].dtype, copy=True) if name in own else tensor
    return model.load_state_dict(found, strict=False, assign=True)


def _install(site: Site, term: Term, packed: bool, device: torch.device) -> None:
    """Put a term into a layer whose weight is nowhere yet; it is laid out here, whatever the device."""
    if packed:
        site.install(term.to(device), packed)
        return
    weight: Any = site.module.weight
    empty = torch.empty_like(weight, device=device)
    site.module.weight = nn.Parameter(empty, requires_grad=weight.requires_grad)
    site.install(term)


def terms_of(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[str, Term]]:
    """The terms by the name of their layer, read one by one."""
    for name, layer in manifest["layers"].items():
        yield name, _term(folder, layer)


def _term(folder: Path, layer: Mapping[str, Any]) -> Term:
    found = read(folder / WEIGHTS, layer["tensors"].values())
    return unpack({k: found[full] for k, full in layer["tensors"].items()}, layer["meta"])


def _tied(model: Any, name: str) -> bool:
    """Whether the tensor shares storage with another one (a tied head is stored once)."""
    state = model.state_dict(keep_vars=True)
    here = state[name]
    return not here.is_meta and sum(int(t.data_ptr() == here.data_ptr()) for t in state.values()) > 1


def _check(folder: Path, name: str, tensor: Tensor | None, shape: list[int], dtype: str) -> None:
    found = None if tensor is None else [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
    if found != [shape, dtype]:
        raise ValueError(f"{folder}: tensors.{name} is {found}; the manifest says {[shape, dtype]}")
