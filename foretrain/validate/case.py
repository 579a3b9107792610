"""What is run and predicted alike: a network, its plan and its recipe. Trainer and simulator read the same case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from foretrain.errors import ForetrainError, UsageError, nearest
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.sim.schedules.registry import schedule_by_name

KINDS = ("mlp", "resnet", "gpt", "module")
SIZES: Mapping[str, Mapping[str, int]] = {
    "mlp": {"width": 1024, "depth": 8, "classes": 1024},
    "resnet": {"depth": 18, "image": 64, "classes": 100},
    "gpt": {"layers": 4, "hidden": 256, "heads": 4, "seq": 128, "vocab": 1024},
    "module": {},
}
"""Sizes that a network may be given, with their defaults."""
BACKENDS = ("torch", "jax", "tensorflow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A network by kind and sizes; of kind `module`, a factory `package.module:name` and the shape and dtype of one sample."""

    kind: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    factory: str = ""
    sample_shape: tuple[int, ...] = ()
    sample_dtype: str = "float32"

    def __post_init__(self) -> None:
        """Refuse kinds and sizes that no network here has; missing sizes get their defaults."""
        if self.kind not in KINDS:
            raise UsageError(f"network {self.kind!r} is unknown; use one of {', '.join(KINDS)}{nearest(str(self.kind), KINDS)}")
        known = SIZES[self.kind]
        for name, value in self.sizes.items():
            if name not in known:
                raise UsageError(f"{self.kind} has no size {name!r}; it has {', '.join(known) or 'none'}{nearest(name, known)}")
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 10**7:
                raise UsageError(f"{self.kind}:{name}={value!r} is no size; give a whole number from 1")
        object.__setattr__(self, "sizes", {**known, **self.sizes})
        object.__setattr__(self, "sample_shape", tuple(self.sample_shape))
        if (self.kind == "module") != bool(self.factory):
            raise UsageError(f"network {self.kind} and factory {self.factory!r} do not go together: kind module has a factory, others none")

    @property
    def text(self) -> str:
        """How the command line names it."""
        if self.kind == "module":
            return self.factory
        return f"{self.kind}:" + ",".join(f"{name}={value}" for name, value in self.sizes.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to run: a network, a plan, a recipe, compiled or not, on a backend."""

    name: str
    net: Net
    plan: Plan
    recipe: Recipe
    compiled: bool = False
    backend: str = "torch"

    def __post_init__(self) -> None:
        """Refuse backends that do not exist."""
        if self.backend not in BACKENDS:
            raise UsageError(f"backend={self.backend!r} is unknown; use one of {', '.join(BACKENDS)}{nearest(self.backend, BACKENDS)}")

    @property
    def microbatches(self) -> int:
        """Micro-batches of one replica in one step."""
        return self.recipe.global_batch // (self.plan.dp * self.plan.micro_batch)


def net_of(text: str) -> Net:
    """Return the network that a text names: `gpt:layers=4,hidden=256`, `resnet`, or a factory `package.module:name`.

    Raises:
        UsageError: naming what is wrong and what is known.
    """
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        if rest and "=" not in rest:
            return Net(kind="module", factory=text)
        known = f"{', '.join(KINDS[:-1])}, or package.module:factory"
        raise UsageError(f"network {text!r} is unknown; use one of {known}{nearest(kind, KINDS[:-1])}")
    return Net(kind=kind, sizes={name: _number(name, value) for name, value in pairs(rest, "sizes")})


def plan_of(text: str) -> Plan:
    """Return the plan that a text says: `dp=2,zero=3`, `pp=2,schedule=gpipe,micro_batch=4`; fields are those of `Plan`.

    Raises:
        UsageError, PlanError: naming the field or value that no plan has.
    """
    return Plan(**_plan_fields(dict(pairs(text, "plan"))))


def pairs(text: str, what: str) -> list[tuple[str, str]]:
    """Return the names and values of `a=1,b=2`."""
    found = []
    for part in filter(None, text.split(",")):
        name, sign, value = part.partition("=")
        if not sign or not value:
            raise UsageError(f"{what} {part!r} is no name=value; write them as a=1,b=2")
        found.append((name.strip(), value.strip()))
    return found


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise UsageError(f"{name}={value} is no size; give a whole number from 1") from None


def _plan_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    known = [one.name for one in fields(Plan)]
    found: dict[str, Any] = {}
    for name, value in data.items():
        if name not in known:
            raise UsageError(f"plan has no {name!r}; it has {', '.join(known)}{nearest(name, known)}")
        if name == "schedule":
            found[name] = schedule_by_name(str(value))
        elif name == "unfold":
            found[name] = frozenset(value.split("+") if isinstance(value, str) else value)
        elif name == "layers_per_stage" and value is not None:
            found[name] = tuple(int(one) for one in (value.split("+") if isinstance(value, str) else value))
        else:
            found[name] = _plain(value) if isinstance(value, str) else value
    return found


def _plain(text: str) -> Any:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def case_data(case: Case) -> dict[str, Any]:
    """Return a case as plain data: the plan's and recipe's fields that are not the default."""
    plan = {one.name: getattr(case.plan, one.name) for one in fields(Plan) if getattr(case.plan, one.name) != getattr(Plan(), one.name)}
    if "schedule" in plan:
        plan["schedule"] = case.plan.schedule.name
    if "unfold" in plan:
        plan["unfold"] = sorted(case.plan.unfold)
    recipe = {name: value for name, value in asdict(case.recipe).items() if value is not None}
    net = {name: value for name, value in asdict(case.net).items() if value}
    return {"name": case.name, "net": net, "plan": plan, "recipe": recipe, "compiled": case.compiled, "backend": case.backend}


def case_of(data: Mapping[str, Any]) -> Case:
    """Return the case that plain data says.

    Raises:
        UsageError: where it is none.
    """
    try:
        return Case(
            name=data["name"], net=Net(**data["net"]), plan=Plan(**_plan_fields(data["plan"])), recipe=Recipe(**data["recipe"]),
            compiled=data.get("compiled", False), backend=data.get("backend", "torch"),
        )  # fmt: skip
    except ForetrainError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"a case has a name, net, plan and recipe; this one is wrong at {error}") from error
