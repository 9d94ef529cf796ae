"""Objects that can be built again from the arguments they were built with."""

import inspect
from typing import Any, Self


class Rebuildable:
    """Remembers its constructor's arguments, so that a checkpoint can name them and rebuild the object elsewhere.

    Arguments should be numbers, strings and lists: nothing else can be kept in a checkpoint.
    """

    init_args: dict[str, Any]  # all arguments by name: those given, the defaults, and those in ``**options``

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        self = super().__new__(cls)
        try:
            inspect.signature(cls.__init__).bind(self, *arguments, **options)
        except TypeError:  # the constructor will say so; a copy or an unpickled object gets its state afterwards
            return self
        init_args: dict[str, Any] = {}
        for kind in cls.__mro__:  # up to the first constructor without ``**options``, which hands nothing on
            _, *parameters = inspect.signature(kind.__init__).parameters.values()
            positional = arguments if kind is cls else ()
            given = {**dict(zip((p.name for p in parameters), positional, strict=False)), **options}
            named = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
            init_args = {**{p.name: given.get(p.name, p.default) for p in named}, **init_args}
            if len(named) == len(parameters):
                break
        object.__setattr__(self, "init_args", init_args)  # nn.Module's own works only after its constructor
        return self
