"""A causal LM seen through its family's row: blocks, and in every block the linear layers by role."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from crunchmark.budget import DENSE_BYTES
from crunchmark.families import GROUPS, family_of
from crunchmark.gone import Gone
from crunchmark.terms import Term

OWN_BIAS = "own_bias"  # attribute of a module whose bias holds a term's shift as well


class TermLinear(nn.Module):
    """A linear layer whose weight is a term: runs the packed form."""

    def __init__(self, term: Term, bias: Tensor | None = None) -> None:
        super().__init__()
        self.term = term
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """X (..., in) -> (..., out)."""
        y: Tensor = self.term(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)


@dataclass(frozen=True)
class Site:
    """One linear layer in its place. `module` is looked up each time, so it survives replacement."""

    name: str  # "model.layers.3.mlp.up_proj"
    role: str  # q, k, v, qkv, o, gate, up, down
    parent: nn.Module
    attr: str
    group: str  # sites of a block with the same group read the same input

    @property
    def module(self) -> nn.Module:
        """The module that sits there now."""
        module: nn.Module = getattr(self.parent, self.attr)
        return module

    @property
    def bias(self) -> Tensor | None:
        """The bias parameter itself (out,), or None."""
        bias: Tensor | None = getattr(self.module, "bias", None)
        return bias

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        module: Any = self.module
        if isinstance(module, TermLinear):
            return module.term.shape
        rows, cols = module.weight.shape
        return (cols, rows) if isinstance(module, Conv1D) else (rows, cols)

    def weight(self) -> Tensor:
        """(out, in), float32, a copy."""
        module: Any = self.module
        if isinstance(module, TermLinear):
            return module.term.dense().detach().clone()
        w: Tensor = module.weight.detach()
        w = w.T if isinstance(module, Conv1D) else w
        return w.to(torch.float32, copy=True, memory_format=torch.contiguous_format)

    def install(self, term: Term, packed: bool = False) -> None:
        """Put the term's dense weight into the module, or (packed) the term itself in the module's place.

        Raises:
            ValueError: the term's shape is another.
        """
        if tuple(term.shape) != self.shape:
            raise ValueError(
                f"{self.name}: the term stands for {tuple(term.shape)}, the layer is {self.shape}"
            )
        module: Any = self.module
        if isinstance(module, TermLinear):
            module.term = term
        elif packed:
            term = term if module.weight.is_meta else term.to(module.weight.device)
            bias = None if term.alone else self.bias
            setattr(self.parent, self.attr, TermLinear(term, bias).train(module.training))
        else:
            dense = term.dense().detach()  # (out, in)
            with torch.no_grad():
                module.weight.copy_(dense.T if isinstance(module, Conv1D) else dense)
            self._shift(torch.zeros(dense.shape[0]) if term.alone else term.shift(), term.alone)

    @property
    def own_bias(self) -> Tensor | None:
        """The model's own bias (out,), whatever a term adds to it."""
        found: Tensor | None = self.module.__dict__.get(OWN_BIAS, self.bias)
        return found

    def _shift(self, shift: Tensor | None, alone: bool = False) -> None:
        """The module's bias is its own (alone: nothing) plus the shift (out,)."""
        module: Any = self.module
        if shift is None and OWN_BIAS not in module.__dict__:
            return
        own = module.__dict__.setdefault(OWN_BIAS, self.bias)
        if shift is None:
            module.bias = own
        else:
            total = shift.to(module.weight) if own is None or alone else own.detach() + shift.to(own)
            module.bias = nn.Parameter(total, requires_grad=module.weight.requires_grad)


class View:
    """A Hugging Face causal LM and where its parts are."""

    def __init__(self, model: Any) -> None:
        """Check every path of the family's row and that no weight of a block is overlooked.

        Raises:
            ValueError: unknown model type, a path that is missing, or weights no role names.
        """
        self.model = model
        self.family = family_of(model.config)
        for path in (*self.family.embeddings, self.family.final_norm, self.family.head):
            self._at(path)
        for i in range(len(self.blocks)):
            self.norms(i)
            self._check(i)

    def _at(self, path: str) -> nn.Module:
        """The module at a dotted path of the model."""
        module: Any = self.model
        for part in path.split("."):
            module = getattr(module, part, None)
            if module is None:
                raise ValueError(
                    f"{self.model.config.model_type} model has no module {path!r} (nothing at {part!r}); "
                    "this variant of the family is not supported"
                )
        found: nn.Module = module
        return found

    def _in_block(self, i: int, path: str) -> nn.Module:
        return self._at(f"{self.family.blocks}.{i}.{path}")

    def _check(self, i: int) -> None:
        """Every matrix of block i must belong to a site, else a budget would silently miss it."""
        known = {id(p) for site in self.sites(i) for p in site.module.parameters()}
        extra = [n for n, p in self.blocks[i].named_parameters() if p.ndim > 1 and id(p) not in known]
        if extra:
            raise ValueError(
                f"{self.model.config.model_type} block {self.family.blocks}.{i} holds weights that no role "
                f"names: {', '.join(extra)}; valid: {', '.join(self.family.roles.values())}"
            )

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks, in order, as they are now."""
        modules: Any = self._at(self.family.blocks)
        return list(modules)

    @property
    def backbone(self) -> nn.Module:
        """The model without its head."""
        return self._at(self.family.blocks.split(".")[0])

    @property
    def head(self) -> nn.Module:
        """Hidden states to logits; may share its weight with the token table."""
        return self._at(self.family.head)

    @property
    def embeddings(self) -> tuple[nn.Module, ...]:
        """Token table first, then learned positions if there are any."""
        return tuple(self._at(path) for path in self.family.embeddings)

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the head."""
        return self._at(self.family.final_norm)

    def norms(self, i: int) -> dict[str, nn.Module]:
        """{"attn", "mlp"}: the norms in front of the branches of block i (one module where they share it)."""
        return {
            "attn": self._in_block(i, self.family.norm_attn),
            "mlp": self._in_block(i, self.family.norm_mlp),
        }

    def sites(self, i: int) -> list[Site]:
        """The linear layers of block i, in the order of the family's roles, of the branches it has."""
        sites = []
        for role, path in self._roles(i).items():
            self._in_block(i, path)
            parent, _, attr = f"{self.family.blocks}.{i}.{path}".rpartition(".")
            sites.append(Site(f"{parent}.{attr}", role, self._at(parent), attr, GROUPS[role]))
        return sites

    def _roles(self, i: int) -> dict[str, str]:
        """Role -> path in block i, without those of branches that are gone."""
        family = self.family
        ends = {"attn": family.attn, "mlp": family.mlp or family.roles["down"]}
        left = {name for name, path in ends.items() if not isinstance(self._in_block(i, path), Gone)}
        attn = ("attn_in", "o_in")
        return {
            r: path for r, path in family.roles.items() if ("attn" if GROUPS[r] in attn else "mlp") in left
        }

    def all_sites(self) -> list[Site]:
        """The linear layers of all blocks, in order."""
        return [site for i in range(len(self.blocks)) for site in self.sites(i)]

    def layers(self) -> dict[str, tuple[int, int]]:
        """Name -> (out, in) of every linear layer of every block."""
        return {site.name: site.shape for site in self.all_sites()}

    def scope_bytes(self, scope: str) -> int:
        """Dense 16-bit bytes of the scope; ask before compressing. Tied weights count once.

        Raises:
            ValueError: the scope is unknown.
        """
        if scope == "blocks":
            return DENSE_BYTES * sum(out * width for out, width in self.layers().values())
        if scope == "model":
            return DENSE_BYTES * sum(int(p.numel()) for p in self.model.parameters())
        raise ValueError(f"scope={scope!r} is unknown; valid: blocks, model")

    def added(self) -> set[str]:
        """Names of tensors inside the scope that the original model does not have (shortcuts)."""
        return set(getattr(self.model, "crunchmark_added", ()))
