"""Arguments are checked by pydantic, where they are used, against the annotated types of the signature."""

import functools
import inspect
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, validate_call

Function = TypeVar("Function", bound=Callable[..., Any])

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Size = Annotated[int, Field(ge=1, le=1000)]  # a part of a network that is larger fits into no memory
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]  # 0 is nothing, 1 is all
Fraction = Annotated[float, Field(gt=0, lt=1)]  # a share that leaves something on both sides
Rate = Annotated[float, Field(ge=0, lt=1)]  # a share that leaves something, such as the share that dropout drops
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # 0 is off
Temperature = Annotated[float, Field(gt=0, lt=1000)]  # 1 changes nothing
Widths = Sequence[Positive]


def checked(function: Function) -> Function:
    """Has pydantic check the arguments strictly (2.0 is no int, "no" is no bool), and says in one line what is allowed.

    Raises:
        ValueError: "name=value: give ...", of the first argument that does not fit its annotation.
        TypeError: an argument is missing, or there is no such argument.
    """
    call = validate_call(config=ConfigDict(strict=True, arbitrary_types_allowed=True))(function)
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def checking(*arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            place = fault["loc"][0]  # a name, or the position of an argument without one
            name = list(parameters)[place] if isinstance(place, int) and place < len(parameters) else str(place)
            given = {**dict(zip(parameters, arguments, strict=False)), **options}
            if name not in parameters or name not in given:
                raise TypeError(f"{function.__qualname__}: {name}: {fault['msg'].lower()}") from error
            raise ValueError(_advice(name, given[name], parameters[name].annotation, fault["msg"])) from error

    return checking  # pyrefly: ignore[bad-return]


def describe_fault(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault that pydantic found in a model, in one line: "group.name=value: give ...".

    A fault of a list's element is told as one of the list.
    """
    fault = error.errors(include_url=False)[0]
    annotation, names = model, []
    for name in fault["loc"]:
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        names.append(str(name))
        annotation = get_type_hints(annotation, include_extras=True)[names[-1]]
    value = "nothing" if fault["type"] == "missing" else fault["input"]
    return _advice(".".join(names), value, annotation, fault["msg"].lower())


def _advice(name: str, value: object, annotation: Any, otherwise: str) -> str:
    allowed = allowed_values(annotation) or otherwise
    return f"{name}={value}: {'choose' if allowed.startswith('one of') else 'give'} {allowed}"


def allowed_values(annotation: Any) -> str:
    """The values of a type in words, such as "a whole number from 1 up"; empty for types without words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return ", or ".join(filter(None, (allowed_values(part) for part in parts if part is not NoneType)))
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}" if len(parts) > 1 else str(parts[0])
    if origin in (Sequence, list, tuple):
        return f"a list, each of it {allowed_values(parts[0])}, as in [a,b]"
    kind, notes = (parts[0], parts[1:]) if origin is Annotated else (annotation, ())
    noun = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, "")
    limits = {}
    for note in notes:
        for limit in getattr(note, "metadata", [note]):  # annotated_types.Ge(ge=1) and the like
            name = type(limit).__name__.lower()
            limits[name] = getattr(limit, name, None)
    return f"{noun}{_range(limits)}" if noun else ""


def _range(limits: dict[str, Any]) -> str:
    low, above, high, below = (limits.get(name) for name in ("ge", "gt", "le", "lt"))
    if isinstance(below, int) and below > 2:
        high, below = below - 1, None
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" from {low} up" + ("" if below is None else f" to, not including, {below}")
    if above is not None:
        return f" above {above}" if below is None else f" between {above} and {below}"
    return ""
