"""Crunchmark: compressed language models on one interface, at equal measured bytes.

Names load on first use, so that reading a store needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "interface": "Keep Layer Method ModelMethod Allocator Compensator Recoverer CacheCodec Skip Trial",
    "task": "Item Metric PairedTask Scene Task",
    "budget": "DENSE_BYTES SLACK Ledger Plan Room Unreachable check_budget dense_bytes",
    "terms": "Bilevel Codebook Dense Kept Layout LowRank NM Nest NormalFloat Outliers Product "
    "Quantised Segments Settings Shift Sparse SparseQuantised Sum Table TensorTrain Term "
    "check_group check_runs check_words groups_for top",
    "stats": "Gram InputMean InputNorm InputStat Stat",
    "fisher": "Fisher",
    "linalg": "Factor Spectrum calibrated_error damped_inverse principal spectrum",
    "obs": "round_columns sweep",
    "apart": "Swept Usual filled ordinary",
    "branch": "Branch balanced",
    "mpo": "Chain",
    "clusters": "divided kmeans kmeans_of_rows nearest nearest_of_rows",
    "families": "ROLES",
    "projected": "Centred Projected directions",
    "rounding": "Columns check_grid grid grids nearest_codes nearest_values round_to snap steps_of "
    "stored_scale value_of",
    "ladders": "Level around entropic goal_of leading levels magnitudes per_block reaching",
    "allocation": "saved_plan",
    "artifact": "load",
    "store": "Store",
    "view": "Site View",
    "calib": "Calibration",
    "walk": "Stream evaluating",
    "hooks": "recording watching",
    "seeds": "seed_of",
    "checks": "flag fraction naming number one_of positive several shares whole",
    "edits": "settle turn_in turn_out",
    "shrunk": "Shrinker best",
    "dropped": "Dropper Unit Without without",
    "effects": "angles influence surprise taken_greedily",
    "modular": "Weights rotary weights_of",
    "modules": "Narrower",
    "sliced": "check_sliceable cut fuse sliced_size steps",
    "stages": "GRID Pruner Rounder check_stages",
    "rounded": "Grid Rounded",
    "folds": "Fold foldable sampled",
    "tuning": "Turn end_to_end reconstruct turns",
    "normal": "Blocks NormalGrid to_normal",
    "programme": "assign",
    "weighed": "Weighed",
    "lost": "LOST fisher_norm",
    "groups": "GroupDraft check_groups evenly groups_that_fit least_groups",
}
if TYPE_CHECKING:
    from crunchmark.allocation import saved_plan as saved_plan
    from crunchmark.apart import Swept as Swept
    from crunchmark.apart import Usual as Usual
    from crunchmark.apart import filled as filled
    from crunchmark.apart import ordinary as ordinary
    from crunchmark.artifact import load as load
    from crunchmark.branch import Branch as Branch
    from crunchmark.branch import balanced as balanced
    from crunchmark.budget import DENSE_BYTES as DENSE_BYTES
    from crunchmark.budget import SLACK as SLACK
    from crunchmark.budget import Ledger as Ledger
    from crunchmark.budget import Plan as Plan
    from crunchmark.budget import Room as Room
    from crunchmark.budget import Unreachable as Unreachable
    from crunchmark.budget import check_budget as check_budget
    from crunchmark.budget import dense_bytes as dense_bytes
    from crunchmark.calib import Calibration as Calibration
    from crunchmark.checks import flag as flag
    from crunchmark.checks import fraction as fraction
    from crunchmark.checks import naming as naming
    from crunchmark.checks import number as number
    from crunchmark.checks import one_of as one_of
    from crunchmark.checks import positive as positive
    from crunchmark.checks import several as several
    from crunchmark.checks import shares as shares
    from crunchmark.checks import whole as whole
    from crunchmark.clusters import divided as divided
    from crunchmark.clusters import kmeans as kmeans
    from crunchmark.clusters import kmeans_of_rows as kmeans_of_rows
    from crunchmark.clusters import nearest as nearest
    from crunchmark.clusters import nearest_of_rows as nearest_of_rows
    from crunchmark.dropped import Dropper as Dropper
    from crunchmark.dropped import Unit as Unit
    from crunchmark.dropped import Without as Without
    from crunchmark.dropped import without as without
    from crunchmark.edits import settle as settle
    from crunchmark.edits import turn_in as turn_in
    from crunchmark.edits import turn_out as turn_out
    from crunchmark.effects import angles as angles
    from crunchmark.effects import influence as influence
    from crunchmark.effects import surprise as surprise
    from crunchmark.effects import taken_greedily as taken_greedily
    from crunchmark.families import ROLES as ROLES
    from crunchmark.fisher import Fisher as Fisher
    from crunchmark.folds import Fold as Fold
    from crunchmark.folds import foldable as foldable
    from crunchmark.folds import sampled as sampled
    from crunchmark.groups import GroupDraft as GroupDraft
    from crunchmark.groups import check_groups as check_groups
    from crunchmark.groups import evenly as evenly
    from crunchmark.groups import groups_that_fit as groups_that_fit
    from crunchmark.groups import least_groups as least_groups
    from crunchmark.hooks import recording as recording
    from crunchmark.hooks import watching as watching
    from crunchmark.interface import Allocator as Allocator
    from crunchmark.interface import CacheCodec as CacheCodec
    from crunchmark.interface import Compensator as Compensator
    from crunchmark.interface import Keep as Keep
    from crunchmark.interface import Layer as Layer
    from crunchmark.interface import Method as Method
    from crunchmark.interface import ModelMethod as ModelMethod
    from crunchmark.interface import Recoverer as Recoverer
    from crunchmark.interface import Skip as Skip
    from crunchmark.interface import Trial as Trial
    from crunchmark.ladders import Level as Level
    from crunchmark.ladders import around as around
    from crunchmark.ladders import entropic as entropic
    from crunchmark.ladders import goal_of as goal_of
    from crunchmark.ladders import leading as leading
    from crunchmark.ladders import levels as levels
    from crunchmark.ladders import magnitudes as magnitudes
    from crunchmark.ladders import per_block as per_block
    from crunchmark.ladders import reaching as reaching
    from crunchmark.linalg import Factor as Factor
    from crunchmark.linalg import Spectrum as Spectrum
    from crunchmark.linalg import calibrated_error as calibrated_error
    from crunchmark.linalg import damped_inverse as damped_inverse
    from crunchmark.linalg import principal as principal
    from crunchmark.linalg import spectrum as spectrum
    from crunchmark.lost import LOST as LOST
    from crunchmark.lost import fisher_norm as fisher_norm
    from crunchmark.modular import Weights as Weights
    from crunchmark.modular import rotary as rotary
    from crunchmark.modular import weights_of as weights_of
    from crunchmark.modules import Narrower as Narrower
    from crunchmark.mpo import Chain as Chain
    from crunchmark.normal import Blocks as Blocks
    from crunchmark.normal import NormalGrid as NormalGrid
    from crunchmark.normal import to_normal as to_normal
    from crunchmark.obs import round_columns as round_columns
    from crunchmark.obs import sweep as sweep
    from crunchmark.programme import assign as assign
    from crunchmark.projected import Centred as Centred
    from crunchmark.projected import Projected as Projected
    from crunchmark.projected import directions as directions
    from crunchmark.rounded import Grid as Grid
    from crunchmark.rounded import Rounded as Rounded
    from crunchmark.rounding import Columns as Columns
    from crunchmark.rounding import check_grid as check_grid
    from crunchmark.rounding import grid as grid
    from crunchmark.rounding import grids as grids
    from crunchmark.rounding import nearest_codes as nearest_codes
    from crunchmark.rounding import nearest_values as nearest_values
    from crunchmark.rounding import round_to as round_to
    from crunchmark.rounding import snap as snap
    from crunchmark.rounding import steps_of as steps_of
    from crunchmark.rounding import stored_scale as stored_scale
    from crunchmark.rounding import value_of as value_of
    from crunchmark.seeds import seed_of as seed_of
    from crunchmark.shrunk import Shrinker as Shrinker
    from crunchmark.shrunk import best as best
    from crunchmark.sliced import check_sliceable as check_sliceable
    from crunchmark.sliced import cut as cut
    from crunchmark.sliced import fuse as fuse
    from crunchmark.sliced import sliced_size as sliced_size
    from crunchmark.sliced import steps as steps
    from crunchmark.stages import GRID as GRID
    from crunchmark.stages import Pruner as Pruner
    from crunchmark.stages import Rounder as Rounder
    from crunchmark.stages import check_stages as check_stages
    from crunchmark.stats import Gram as Gram
    from crunchmark.stats import InputMean as InputMean
    from crunchmark.stats import InputNorm as InputNorm
    from crunchmark.stats import InputStat as InputStat
    from crunchmark.stats import Stat as Stat
    from crunchmark.store import Store as Store
    from crunchmark.task import Item as Item
    from crunchmark.task import Metric as Metric
    from crunchmark.task import PairedTask as PairedTask
    from crunchmark.task import Scene as Scene
    from crunchmark.task import Task as Task
    from crunchmark.terms import NM as NM
    from crunchmark.terms import Bilevel as Bilevel
    from crunchmark.terms import Codebook as Codebook
    from crunchmark.terms import Dense as Dense
    from crunchmark.terms import Kept as Kept
    from crunchmark.terms import Layout as Layout
    from crunchmark.terms import LowRank as LowRank
    from crunchmark.terms import Nest as Nest
    from crunchmark.terms import NormalFloat as NormalFloat
    from crunchmark.terms import Outliers as Outliers
    from crunchmark.terms import Product as Product
    from crunchmark.terms import Quantised as Quantised
    from crunchmark.terms import Segments as Segments
    from crunchmark.terms import Settings as Settings
    from crunchmark.terms import Shift as Shift
    from crunchmark.terms import Sparse as Sparse
    from crunchmark.terms import SparseQuantised as SparseQuantised
    from crunchmark.terms import Sum as Sum
    from crunchmark.terms import Table as Table
    from crunchmark.terms import TensorTrain as TensorTrain
    from crunchmark.terms import Term as Term
    from crunchmark.terms import check_group as check_group
    from crunchmark.terms import check_runs as check_runs
    from crunchmark.terms import check_words as check_words
    from crunchmark.terms import groups_for as groups_for
    from crunchmark.terms import top as top
    from crunchmark.tuning import Turn as Turn
    from crunchmark.tuning import end_to_end as end_to_end
    from crunchmark.tuning import reconstruct as reconstruct
    from crunchmark.tuning import turns as turns
    from crunchmark.view import Site as Site
    from crunchmark.view import View as View
    from crunchmark.walk import Stream as Stream
    from crunchmark.walk import evaluating as evaluating
    from crunchmark.weighed import Weighed as Weighed

_WHERE = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'crunchmark' has no attribute {name!r}")
    return getattr(import_module(f"crunchmark.{_WHERE[name]}"), name)
