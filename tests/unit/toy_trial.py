"""A trial without a model: what allocators ask is answered from plain numbers."""

from dataclasses import dataclass, field
from types import SimpleNamespace

from crunchmark import Trial, dense_bytes


@dataclass
class Toy(Trial):
    """By name: `harm`, factor of (1 - keep)^2 in the loss; `steps`, sizes; `energies`, spectra."""

    layers: dict
    share: float
    harm: dict = field(default_factory=dict)
    steps: dict = field(default_factory=dict)
    energies: dict = field(default_factory=dict)
    moved: tuple = ()
    units: list = None
    roles: dict = field(default_factory=dict)
    samples: int = 4
    seed: int = 0
    asked: list = field(default_factory=list)

    def __post_init__(self):
        self.units = self.units or [[name] for name in self.layers]
        self.blocks = self.units

    def layer(self, name):
        raise AssertionError(f"asked for the layer {name}; there is no model here")

    def sizes(self, name):
        return self.steps.get(name)

    def error(self, name, keep, of="outputs"):
        return self.harm[name] * (1 - keep) ** 2

    def spectrum(self, name):
        return self.energies[name]

    def influence(self):
        return self.moved

    def loss(self, keeps, samples, kind="kl"):
        self.asked.append(dict(keeps))
        return sum(self.error(name, keep) for name, keep in keeps.items())

    def fit(self, keeps, **notes):
        return SimpleNamespace(keeps=dict(keeps), notes=notes)

    @property
    def goal(self):
        return self.share * sum(dense_bytes(shape) for shape in self.layers.values())

    def nbytes(self, keeps):
        return sum(keep * dense_bytes(self.layers[name]) for name, keep in keeps.items())

    def give(self, allocator):
        return allocator.allocate(self, self.layers, int(self.goal)).keeps
