"""An artifact as a folder that others load: plain Hugging Face, or compressed-tensors.

python -m crunchmark.export ARTIFACT --to hf|compressed_tensors --out DIR [--dtype auto]
"""

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crunchmark import artifact, pack_quantized
from crunchmark.checks import one_of
from crunchmark.files import read_json, whole_folder, write_json
from crunchmark.models import DTYPES, dtype_of
from crunchmark.plain import plain
from crunchmark.tensorfile import save
from crunchmark.terms import Dense

AUTO = "auto"  # the dtype that the artifact's real numbers are stored in
OURS = (artifact.WEIGHTS, artifact.MANIFEST, artifact.MADE)  # the other files are the tokenizer's
ARTIFACTS = "the folder that `artifact` of a row names, or the cell's folder in the store"
Manifest = Mapping[str, Any]


class NotWritten(ValueError):
    """The folder could not be written: the disk is full, or it may not be."""


def to_hf(folder: Path | str, out: Path | str, dtype: str = AUTO) -> None:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` loads; every weight laid out densely.

    dtype: of the weights: bfloat16, float16, float32, or auto, as the artifact stores its real numbers.

    Raises:
        ValueError: no config describes the model, dtype does not hold a weight, or `out` is not empty.
        NotWritten: the disk refused.
    """
    source, target = located(folder), _free(out)
    one_of("dtype", dtype, (AUTO, *DTYPES))
    manifest = artifact.read_manifest(source)
    kind = _stored_in(manifest) if dtype == AUTO else dtype_of("dtype", dtype)
    model = _plain(source, manifest)
    tensors, exact = _cast(model.state_dict(), kind)
    said = "exactly those of the artifact" if exact else f"those of the artifact, rounded to {_name(kind)}"
    _write(source, manifest, target, model, kind, tensors, f"dense, {said}")


def to_compressed_tensors(folder: Path | str, out: Path | str) -> None:
    """Write a folder in compressed-tensors' pack-quantized format; codes, scales and zeros as they are.

    Raises:
        ValueError: a layer can not be expressed, the library is missing, or `out` is not empty.
        NotWritten: the disk refused.
    """
    source, target = located(folder), _free(out)
    if find_spec("compressed_tensors") is None:
        raise ValueError(
            "to=compressed_tensors needs a library that is not installed; "
            "valid: pip install 'crunchmark-bench[export]', or to=hf"
        )
    manifest = artifact.read_manifest(source)
    found = artifact.terms_of(source, manifest)
    terms: dict[str, Any] = {name: term for name, term in found if not isinstance(term, Dense)}
    pack_quantized.check(terms)
    model = _plain(source, manifest)
    pack_quantized.check_linear(terms, model)
    terms = pack_quantized.unified(terms)
    rest = {k: t for k, t in model.state_dict().items() if k.removesuffix(".weight") not in terms}
    tensors, _ = _cast(rest, pack_quantized.SCALE)
    for name, term in terms.items():
        tensors |= pack_quantized.packed(name, term)
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    model.config.quantization_config = pack_quantized.described(terms, linears)
    said = "packed codes, the artifact's own"
    _write(source, manifest, target, model, pack_quantized.SCALE, tensors, said, pack_quantized.remark(terms))


FORMATS: dict[str, Callable[..., None]] = {"hf": to_hf, "compressed_tensors": to_compressed_tensors}


def located(path: Path | str) -> Path:
    """The artifact's folder.

    path: that folder, or a cell of the store, whose row names it.

    Raises:
        ValueError: there is none.
    """
    folder = Path(path)
    if (folder / artifact.MANIFEST).is_file():
        return folder
    cell = read_json(folder / "cell.json") if folder.is_dir() else None
    if cell is None:
        wrong = f"holds no {artifact.MANIFEST}" if folder.is_dir() else "is no folder"
        raise ValueError(f"artifact={str(path)!r} {wrong}; valid: {ARTIFACTS}")
    if not cell.get("artifact"):
        raise ValueError(f"artifact={str(path)!r} is a cell without one ({cell.get('reason', 'not made')})")
    if not (Path(cell["artifact"]) / artifact.MANIFEST).is_file():
        raise ValueError(
            f"artifact={str(path)!r} names {cell['artifact']}, which is not there (the cache is bounded); "
            "valid: the same run.py command again makes it, from the same folder"
        )
    return Path(cell["artifact"])


def _free(out: Path | str) -> Path:
    """The folder to write, which must not hold anything."""
    path = Path(os.path.abspath(out))
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"out={str(out)!r} is there already and not empty; valid: a new folder")
    return path


def _plain(source: Path, manifest: Manifest) -> Any:
    """The artifact's model as its own class makes it."""
    edits = [edit["kind"] for edit in manifest["edits"]]
    model = artifact.load(source, packed=False)
    try:
        return plain(model, edits)
    except ValueError as error:
        raise ValueError(f"{source} has no form others load: {error}; valid: crunchmark.load") from None


def _stored_in(manifest: Manifest) -> torch.dtype:
    """The dtype of the real numbers that no term stands for."""
    found = Counter(
        kind for name, (_, kind) in manifest["tensors"].items() if "::" not in name and kind in DTYPES
    )
    return dtype_of("dtype", found.most_common(1)[0][0])


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[dict[str, Tensor], bool]:
    """The tensors in that dtype, tied ones once, and whether nothing was rounded.

    Raises:
        ValueError: a number is too large for it; names the tensor.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    exact = True
    for name, tensor in state.items():
        if tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        found[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        if not torch.isfinite(found[name]).all():
            raise ValueError(
                f"{name} holds numbers too large for {_name(dtype)}; valid: to=hf, dtype=bfloat16"
            )
        exact = exact and torch.equal(found[name].to(tensor.dtype), tensor)
    return found, exact


def _write(
    source: Path,
    manifest: Manifest,
    out: Path,
    model: Any,
    dtype: torch.dtype,
    tensors: Mapping[str, Tensor],
    what: str,
    remark: str = "",
) -> None:
    """Weights, config, generation config, tokenizer and a note of where they come from."""
    model.config.architectures = [type(model).__name__]
    model.config.dtype = dtype
    try:
        with whole_folder(out) as temp:
            for file in source.iterdir():
                if file.is_file() and file.name not in OURS:
                    shutil.copyfile(file, temp / file.name)
            save(tensors, temp / "model.safetensors")
            model.config.to_json_file(temp / "config.json")
            write_json(temp / "generation_config.json", model.generation_config.to_diff_dict())
            size = sum(t.numel() * t.element_size() for t in tensors.values())
            (temp / "README.md").write_text(_note(manifest, size, what, remark), encoding="utf-8")
    except OSError as error:
        raise NotWritten(f"out={str(out)!r} can not be written: {error.strerror or error}") from error


def _note(manifest: Manifest, size: int, what: str, remark: str) -> str:
    """README.md of the export."""
    kinds = Counter(layer["meta"]["kind"] for layer in manifest["layers"].values())
    layers = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
    dense = manifest["about"].get("dense_model_bytes")
    rows = {
        "weights in this folder": f"{size:,} bytes ({what})",
        "weights in the artifact": f"{manifest['model_bytes']:,} bytes (sha256 {manifest['sha256'][:12]})",
        "weights of the dense parent, 16 bit": f"{dense:,} bytes" if dense else "not recorded",
        "layers with a term, by kind": layers,
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        "# Exported by Crunchmark\n\nLoad it with `AutoModelForCausalLM.from_pretrained`; "
        f"Crunchmark is not needed.\n\n| | |\n| --- | --- |\n{table}\n" + (f"\n{remark}\n" if remark else "")
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main(argv: Sequence[str] | None = None) -> int:
    """Export what the options name; the exit code: 1 it could not be written, 2 something is not valid."""
    options = argparse.ArgumentParser(description="An artifact as a folder that others load")
    options.add_argument("artifact", help=ARTIFACTS)
    options.add_argument("--to", required=True, help=", ".join(FORMATS))
    options.add_argument("--out", required=True, help="the new folder")
    options.add_argument(
        "--dtype", default=AUTO, help=f"of hf: {AUTO}, {', '.join(DTYPES)} (default: {AUTO})"
    )
    chosen = options.parse_args(argv)
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        one_of("to", chosen.to, FORMATS)
        given = {"dtype": chosen.dtype} if chosen.dtype != AUTO else {}
        if given and chosen.to != "hf":
            raise ValueError(f"dtype={chosen.dtype!r} does not go with to={chosen.to}; valid: {AUTO}")
        FORMATS[chosen.to](chosen.artifact, chosen.out, **given)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1 if isinstance(error, NotWritten) else 2
    sys.stdout.write(f"{chosen.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
