"""How the paper's figures are read (`configs/claims.yaml`): conventions, tolerances, and what is known besides.

The file is data, so that a reader can see and change what a verdict rests on. It is checked whole when an experiment
is loaded: every problem with its line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, model_validator

from hafabench.config.base import RenamedKeysModel, StrictModel
from hafabench.config.catalog import CATALOG, ModelSpec, derive
from hafabench.config.keep_rates import SCHEDULES, rates_problem, scheduled
from hafabench.config.operation_kinds import BUFFERS, MULTIPLICATIONS, OPERATIONS, PARAMETERS, PARTS
from hafabench.config.yaml_file import YamlFile
from hafabench.errors import Problem, UserError

StaticMetric = Literal["params_m", "gflops"]
Printing = Literal["rounded", "rounded twice", "truncated"]

UNITS: dict[str, int] = {"params_m": 10**6, "gflops": 10**9}
BUILDS: dict[str, str] = {
    "deep_stem": "ResNets of segmentation with mmseg's three 3x3 convolutions in place of the 7x7 one (ResNetV1c)"
}
"""Other builds of a row than the project's own, by name."""

# A row convention settles a claim only if it explains at least this share of its rows.
MIN_EXPLAINED_SHARE = 0.75

_KINDS = {"params_m": (*PARAMETERS, BUFFERS), "gflops": OPERATIONS}


class Convention(RenamedKeysModel):
    """A way to count, applied alike to every model.

    Attributes:
        name: in verdicts and tables.
        metric: what it counts.
        says: what is counted, one clause.
        leave_out: kinds (`hafabench.config.operation_kinds`) that are not counted; by default all parameters or all
            multiplications are counted.
        add: kinds that are counted besides, and how often each.
        without: parts of the model that are not counted.
        trainable: count only parameters that training changes.
        dead_weights: count also the weights of the authors' classes that no gradient reaches. A counting option: no
            model holds them.
        build: count another build of the row (`BUILDS`) where there is one.
        unit: what one of the printed unit is; 10^6 parameters or 10^9 operations unless given.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9' +-]*$")
    metric: StaticMetric
    says: str = Field(min_length=3)
    leave_out: tuple[str, ...] = ()
    add: dict[str, int] = Field(default_factory=dict)
    without: tuple[Literal[PARTS], ...] = ()
    trainable: bool = False
    dead_weights: bool = False
    build: Literal["deep_stem"] | None = Field(None, validation_alias=AliasChoices("build", "variant"))
    unit: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _kinds_are_known(self) -> Convention:
        known = _KINDS[self.metric]
        unknown = [kind for kind in (*self.leave_out, *self.add) if kind not in known]
        if unknown:
            raise ValueError(f"unknown kind {unknown[0]!r}; expected one of {', '.join(known)}")
        if self.metric == "gflops" and (self.trainable or self.dead_weights):
            raise ValueError("trainable and dead_weights are about parameters, not operations")
        return self

    @property
    def weights(self) -> dict[str, int]:
        """How often each kind is counted."""
        base = PARAMETERS if self.metric == "params_m" else MULTIPLICATIONS
        return {kind: 1 for kind in base if kind not in self.leave_out} | self.add

    @property
    def per_unit(self) -> int:
        """Counts that make one of the printed unit."""
        return self.unit or UNITS[self.metric]


class RowConvention(StrictModel):
    """A convention, how its counts were shortened to a printed figure, and the rows that are said to be printed so.

    Attributes:
        convention: a name.
        printed: ``rounded`` (half up), ``rounded twice`` (to two decimals, as many tools print, then to the paper's
            one) or ``truncated``.
        rows: patterns of locators (``table2/*``), shell style.
        because: why these rows, and where the convention comes from.
    """

    convention: str
    printed: Printing = "rounded"
    rows: tuple[str, ...] = Field(min_length=1)
    because: str = Field(min_length=3)


class Tolerance(StrictModel):
    """How far a measured figure may lie from the printed one.

    Attributes:
        metrics: of the paper's values.
        within: in the metric's unit, or, with ``relative``, as a share of the printed value.
        because: where that spread is known from.
        device: the figures are of this device; others settle nothing.
    """

    metrics: tuple[str, ...] = Field(min_length=1)
    within: float = Field(gt=0)
    relative: bool = False
    because: str = Field(min_length=3)
    device: str | None = None


class Elsewhere(StrictModel):
    """A figure that others report for a row of the paper: the ledger says what a printed gain is against it."""

    claim: str
    value: float
    by: str = Field(min_length=3)


class StandIn(StrictModel):
    """Another model whose count prints a contradicted figure; counted, never taken for the row's own.

    Attributes:
        claim: locator of the figure.
        base: model of the catalogue that it is like.
        architecture: timm's name of it, where that differs.
        keep: schedule and rate of kept tokens, where these differ.
        says: what it is.
    """

    claim: str
    base: str
    architecture: str | None = None
    keep: tuple[Literal[tuple(SCHEDULES)], float] | tuple[float, float, float] | None = None
    says: str = Field(min_length=3)

    @property
    def model(self) -> ModelSpec:
        """What to count: the base itself, or a model of its own name."""
        base, changes = CATALOG[self.base], {}
        if self.architecture:
            changes["architecture"] = self.architecture
        if self.keep:
            changes["keep"] = scheduled(*self.keep) if isinstance(self.keep[0], str) else self.keep
        return derive(base, self.says, **changes) if changes else base


class Note(StrictModel):
    """What a reader of certain rows has to know."""

    rows: tuple[str, ...] = Field(min_length=1)
    says: str = Field(min_length=3)


class ClaimsConfig(RenamedKeysModel):
    """The claims file: conventions and row conventions, the simplest of each metric first, and tolerances."""

    conventions: tuple[Convention, ...]
    row_conventions: tuple[RowConvention, ...] = Field(validation_alias=AliasChoices("row_conventions", "readings"))
    tolerances: tuple[Tolerance, ...]
    elsewhere: tuple[Elsewhere, ...] = ()
    stand_ins: tuple[StandIn, ...] = ()
    notes: tuple[Note, ...] = ()

    def convention(self, name: str) -> Convention:
        """The convention of that name."""
        return next(convention for convention in self.conventions if convention.name == name)

    def default_convention(self, metric: str) -> Convention:
        """The first convention of a metric: what `hafabench.measure.complexity` counts."""
        return next(convention for convention in self.conventions if convention.metric == metric)


def load_claims_config(path: Path) -> ClaimsConfig:
    """Read and check the file; raises `UserError` with every problem."""
    source = YamlFile(path)
    config = source.validate(ClaimsConfig)
    problems: list[Problem] = []
    names = [convention.name for convention in config.conventions]
    for index, name in enumerate(names):
        if name in names[:index]:
            problems.append(source.problem(("conventions", index, "name"), f"convention {name!r} given twice"))
    for metric in UNITS:
        if all(convention.metric != metric for convention in config.conventions):
            problems.append(source.problem(("conventions",), f"expected a convention for {metric}"))
    section = source.spelling((), "row_conventions", "readings")
    for index, row_convention in enumerate(config.row_conventions):
        if row_convention.convention not in names:
            message = f"unknown convention {row_convention.convention!r}; expected one of {', '.join(names)}"
            problems.append(source.problem((section, index, "convention"), message))
    for index, stand_in in enumerate(config.stand_ins):
        at = ("stand_ins", index)
        if stand_in.base not in CATALOG:
            problems.append(source.problem((*at, "base"), f"unknown model {stand_in.base!r}"))
        elif stand_in.keep and (wrong := rates_problem(stand_in.model.keep)):
            problems.append(source.problem((*at, "keep"), wrong))
    covered: set[str] = set()
    for index, tolerance in enumerate(config.tolerances):
        for metric in tolerance.metrics:
            if metric in covered:
                at = ("tolerances", index, "metrics")
                problems.append(source.problem(at, f"{metric} has a tolerance already"))
            covered.add(metric)
    if problems:
        raise UserError(problems)
    return config
