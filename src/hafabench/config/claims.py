"""The schema of the claims file (`configs/claims.yaml`): how the paper's printed values are checked.

The file contains the conventions by which parameters and operations may have been counted, the tolerances of measured
values, and what else is known about the printed values. It is checked completely when an experiment is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, model_validator

from hafabench.config.base import RenamedKeysModel, StrictModel, shown
from hafabench.config.catalog import CATALOG, ModelSpec, derive
from hafabench.config.keep_rates import KeepRates, keep_rates_problem, scheduled
from hafabench.config.operation_kinds import BUFFERS, MULTIPLICATIONS, OPERATIONS, PARAMETERS, Part
from hafabench.config.recipes import Task
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import Problem, UserError

StaticMetric = Literal["params_m", "gflops"]
RoundingMode = Literal["rounded", "rounded twice", "truncated"]

UNITS: dict[StaticMetric, int] = {"params_m": 10**6, "gflops": 10**9}
BUILDS: dict[str, str] = {
    "deep_stem": "ResNets of segmentation with mmseg's three 3x3 convolutions in place of the 7x7 one (ResNetV1c)"
}
"""Builds of a model other than this project's own, by name."""

# A row convention settles a claim only if it explains at least this share of its rows.
MIN_EXPLAINED_SHARE = 0.75

_KINDS = {"params_m": (*PARAMETERS, BUFFERS), "gflops": OPERATIONS}


class Convention(RenamedKeysModel):
    """A way to count parameters or operations. It is applied to every model alike.

    Without further keys, all parameters or all multiply-accumulates are counted.
    """

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9' +-]*$", description="Name of the convention in verdicts and tables."
    )
    metric: StaticMetric = Field(description="What is counted: parameters, or multiply-accumulates.")
    says: str = Field(min_length=3, description="What is counted, in a few words.")
    leave_out: tuple[str, ...] = Field(
        (), description="Kinds that are not counted. `src/hafabench/config/operation_kinds.py` lists the kinds."
    )
    add: dict[str, Annotated[int, Field(ge=0, le=1000)]] = Field(
        default_factory=dict, description="Kinds that are counted in addition, and how often each is counted."
    )
    without: tuple[Part, ...] = Field((), description="Parts of the model that are not counted.")
    trainable: bool = Field(False, description="Whether only parameters that the training changes are counted.")
    dead_weights: bool = Field(
        False,
        description="Whether the weights that no gradient reaches are counted as well. The authors' classes have "
        "such weights; the models of this project have none.",
    )
    build: Literal["deep_stem"] | None = Field(
        None,
        validation_alias=AliasChoices("build", "variant"),
        description="Build to count instead of the model's own, for models that have it. `deep_stem` is mmseg's "
        "ResNetV1c.",
    )
    unit: int = Field(
        0,
        ge=0,
        le=10**12,
        description="Counts per printed unit; 0 means 10^6 parameters or 10^9 multiply-accumulates.",
    )

    @model_validator(mode="after")
    def _check_kinds(self) -> Convention:
        known = _KINDS[self.metric]
        unknown = [kind for kind in (*self.leave_out, *self.add) if kind not in known]
        if unknown:
            raise ValueError(f"unknown kind {shown(unknown[0])}; expected one of {', '.join(known)}")
        if self.metric == "gflops" and (self.trainable or self.dead_weights):
            raise ValueError("trainable and dead_weights apply to parameters, not to operations")
        return self

    @property
    def weights(self) -> dict[str, int]:
        """How often each kind is counted."""
        base = PARAMETERS if self.metric == "params_m" else MULTIPLICATIONS
        return {kind: 1 for kind in base if kind not in self.leave_out} | self.add

    @property
    def per_unit(self) -> int:
        """Counts per printed unit."""
        return self.unit or UNITS[self.metric]


class RowConvention(StrictModel):
    """The convention by which some rows of the paper are assumed to be counted."""

    convention: str = Field(description="Name of the convention.")
    printed: RoundingMode = Field(
        "rounded",
        description="Rounding mode of the figures: `rounded` (half up), `rounded twice` (to two decimals first, "
        "as many tools print them) or `truncated`.",
    )
    rows: tuple[str, ...] = Field(
        min_length=1, description="Shell patterns of the claims that the convention holds for: `table2/*/params_m`."
    )
    because: str = Field(min_length=3, description="Why it holds for these rows, with the source of the convention.")


class Tolerance(StrictModel):
    """How far a measured value may be from the printed one, in addition to half a printed digit."""

    metrics: tuple[str, ...] = Field(min_length=1, description="Metrics of the paper's values.")
    within: float = Field(
        gt=0,
        le=10**6,
        description="Tolerance in the unit of the metric, or as a share of the printed value if `relative` is true.",
    )
    relative: bool = Field(False, description="Whether `within` is a share of the printed value.")
    because: str = Field(min_length=3, description="Source of the tolerance.")
    device: str | None = Field(
        None,
        description="Device that the printed values are taken to be from. Measurements on other devices settle no "
        "claim.",
    )


class Elsewhere(StrictModel):
    """A value that others report for a row of the paper. Printed gains are compared with it."""

    claim: str = Field(description="Locator of the claim: `table2/pvt_tiny/miou`.")
    value: float = Field(description="The reported value, in the unit of the printed one.")
    by: str = Field(min_length=3, description="Who reports the value.")


class StandIn(StrictModel):
    """Another model whose count gives the printed value of a contradicted claim.

    It is counted and mentioned, but it never settles the claim.
    """

    claim: str = Field(description="Locator of the claim: `table1/resnext50_32x4d/gflops`.")
    base: str = Field(description="Known model that the stand-in is derived from.")
    architecture: str | None = Field(None, description="timm's name of another architecture; null keeps the base's.")
    keep: tuple[Literal["constant", "powers", "steps", "clamped"], float] | tuple[float, float, float] | None = Field(
        None, description="Other keep rates: a schedule with its rate, or three rates; null keeps the base's."
    )
    says: str = Field(min_length=3, description="What the stand-in is, in a few words.")

    @property
    def keep_rates(self) -> KeepRates | None:
        """The three keep rates; None if they are the base's."""
        if self.keep is None or len(self.keep) == 3:
            return self.keep
        return scheduled(*self.keep)

    @property
    def model(self) -> ModelSpec:
        """The model to count: the base itself, or a model derived from it under the name `says`."""
        base = CATALOG[self.base]
        wanted = {"architecture": self.architecture, "keep": self.keep_rates}
        changes = {key: value for key, value in wanted.items() if value is not None}
        return derive(base, self.says, **changes) if changes else base


class Note(StrictModel):
    """A remark on some claims."""

    rows: tuple[str, ...] = Field(
        min_length=1, description="Shell patterns of the claims: `table6/swin_tiny_hafa/*`."
    )
    says: str = Field(min_length=3, description="The remark.")


class Protocol(StrictModel):
    """Where the paper's data sets, input sizes, schedules and recipes are written down."""

    experiment: Path = Field(
        Path("paper.yaml"),
        description="Experiment file with the paper's data sets and recipes, relative to the claims file.",
    )
    fingerprints: dict[Task, str] = Field(
        description="Fingerprint of each task's data set, input sizes and schedules in this experiment. If the files "
        "were edited, for example for other data, measured figures of the task are not compared with the paper's."
    )


class ClaimsConfig(RenamedKeysModel):
    """How the paper's printed values are checked."""

    conventions: tuple[Convention, ...] = Field(
        description="Conventions, the simplest of each metric first. Needs at least one for `params_m` and for "
        "`gflops`."
    )
    row_conventions: tuple[RowConvention, ...] = Field(
        validation_alias=AliasChoices("row_conventions", "readings"),
        description="Conventions by which some rows are assumed to be counted, in the order in which they are tried. "
        "The first convention of each metric is tried before them, on every row.",
    )
    tolerances: tuple[Tolerance, ...] = Field(
        description="Tolerances of measured values, at most one per metric. A difference of two runs may deviate by "
        "the square root of two times as much."
    )
    protocol: Protocol | None = Field(
        None,
        description="The paper's protocol. Figures that were measured under another protocol are not compared with "
        "the paper's. Without this key no measured figure is compared.",
    )
    elsewhere: tuple[Elsewhere, ...] = Field((), description="Values that others report for rows of the paper.")
    stand_ins: tuple[StandIn, ...] = Field(
        (), description="Other models whose counts give printed values that the rows' own models do not give."
    )
    notes: tuple[Note, ...] = Field((), description="Remarks on claims.")

    def convention(self, name: str) -> Convention:
        """Return the convention called ``name``."""
        return next(convention for convention in self.conventions if convention.name == name)

    def default_convention(self, metric: str) -> Convention:
        """Return the first convention of a metric, which is the one that `hafabench.measure.complexity` counts by."""
        return next(convention for convention in self.conventions if convention.metric == metric)


def load_claims_config(path: Path) -> ClaimsConfig:
    """Read and check the claims file.

    Raises:
        UserError: With every problem of the file.
    """
    source = YamlFile(path)
    config = source.validate(ClaimsConfig)
    problems: list[Problem] = []
    names = [convention.name for convention in config.conventions]
    for index, name in enumerate(names):
        if name in names[:index]:
            problems.append(source.problem(("conventions", index, "name"), f"convention {name!r} is given twice"))
    for metric in UNITS:
        if all(convention.metric != metric for convention in config.conventions):
            problems.append(source.problem(("conventions",), f"expected a convention for {metric}"))
    section = source.spelling((), "row_conventions", "readings")
    for index, row_convention in enumerate(config.row_conventions):
        if row_convention.convention not in names:
            message = f"unknown convention {shown(row_convention.convention)}; expected one of {', '.join(names)}"
            problems.append(source.problem((section, index, "convention"), message))
    for index, stand_in in enumerate(config.stand_ins):
        if stand_in.base not in CATALOG:
            problems.append(source.problem(("stand_ins", index, "base"), f"unknown model {shown(stand_in.base)}"))
        elif stand_in.keep_rates and (wrong := keep_rates_problem(stand_in.keep_rates)):
            problems.append(source.problem(("stand_ins", index, "keep"), wrong))
    covered: set[str] = set()
    for index, tolerance in enumerate(config.tolerances):
        for name in tolerance.metrics:
            if name in covered:
                problems.append(source.problem(("tolerances", index, "metrics"), f"{name} has a tolerance already"))
            covered.add(name)
    if problems:
        raise UserError(problems)
    return config
