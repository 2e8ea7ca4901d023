"""For code written for Clara Train: parts of MONAI that it needs and MONAI has dropped.

Nothing here happens by itself. A config or a class asks for it:

``numpy_transform``       a transform that expects numpy arrays and gets MetaTensors
``batch_output_handler``  a handler that expects a batch's output and gets a list of cases
``AdditionalEvents``      a trainer that registers events of its own in a method

A config uses the first two by ``path`` and names the MMAR's own class by a string. So they are code
as that class is, and a site refuses them where it allows no code.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from ignite.engine import Engine
from ignite.engine.events import RemovableEventHandle
from monai.data import MetaTensor
from monai.transforms import Randomizable, RandomizableTrait, Transform

from mmar_runtime.errors import ComponentError, did_you_mean

# --- Transforms ----------------------------------------------------------------------------------


def numpy_transform(transform: str, arguments: Mapping[str, Any] | None = None) -> NumpyTransform:
    """Return the transform of that path, which sees numpy arrays where MONAI has tensors.

    Args:
        transform: the class, as module.Class.
        arguments: of the class.

    Raises:
        ComponentError: there is no such class.
    """
    wrapped = _own(transform)(**(arguments or {}))
    kind = RandomNumpyTransform if isinstance(wrapped, RandomizableTrait) else NumpyTransform
    return kind(wrapped)


class NumpyTransform(Transform):
    """A transform around another transform: arrays in, tensors with their metadata out.

    Of a dictionary, every tensor becomes an array, and next to each image the transform finds
    ``<key>_meta_dict`` with the image's metadata, as it did in 2021. Afterwards every image is a
    MetaTensor again: with its metadata, with the transform's changes of that dictionary,
    and with the record of transforms before it that ``Invertd`` reads. What this transform does is
    not recorded, so ``Invertd`` does not undo it.

    Attributes:
        transform: the transform inside.
    """

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    def __call__(self, data: Any) -> Any:
        """Apply the transform inside to ``data``: a dictionary, or an image by itself."""
        if not isinstance(data, Mapping):
            return _as_image(self.transform(_as_array(data)), like=data)
        arrays = {key: _as_array(value) for key, value in data.items()}
        for key, image in data.items():
            if isinstance(image, MetaTensor):
                meta = {name: _as_array(value) for name, value in image.meta.items()}
                arrays[_meta_key(key)] = meta
        changed = self.transform(arrays)
        if isinstance(changed, list):  # crops: one dictionary for each
            return [_with_images(item, like=data) for item in changed]
        return _with_images(changed, like=data)


class RandomNumpyTransform(NumpyTransform, Randomizable):
    """A wrapper of a random transform: it is seeded with the others, and never cached."""

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandomNumpyTransform:
        """Seed the transform inside."""
        super().set_random_state(seed, state)
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed, state)
        return self

    def randomize(self, data: Any) -> None:
        """Do nothing: the transform inside draws its own numbers."""


def _meta_key(key: Hashable) -> str:
    return f"{key}_meta_dict"


def _as_array(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _with_images(
    changed: Mapping[Hashable, Any], like: Mapping[Hashable, Any]
) -> dict[Hashable, Any]:
    images = dict(changed)
    for key, before in like.items():
        if key not in changed or not isinstance(before, torch.Tensor):
            continue
        meta = changed.get(_meta_key(key))
        images[key] = _as_image(changed[key], like=before, meta=meta)
        if _meta_key(key) not in like:
            images.pop(_meta_key(key), None)
    return images


def _as_image(value: Any, *, like: Any, meta: Mapping[str, Any] | None = None) -> Any:
    """Return an array as the former value of its place: an image with metadata, or a tensor."""
    if not isinstance(value, np.ndarray | np.generic | torch.Tensor) or not isinstance(
        like, torch.Tensor
    ):
        return value
    # torch shares an array's memory and cannot do so with one whose axes are flipped.
    tensor = torch.as_tensor(
        value if isinstance(value, torch.Tensor) else np.ascontiguousarray(value),
        device=like.device,
    )
    if not isinstance(like, MetaTensor):
        return tensor
    given = like.meta if meta is None else meta
    image = MetaTensor(
        tensor.as_subclass(torch.Tensor),
        meta={**given, "affine": torch.as_tensor(given["affine"], dtype=torch.float64)},
    )
    image.applied_operations = list(like.applied_operations)
    return image


# --- Handlers ------------------------------------------------------------------------------------


class Handler(Protocol):
    """A handler, as MONAI and ignite call it."""

    def attach(self, engine: Any) -> Any:
        """Register with the engine's events."""


Callback: TypeAlias = Callable[..., Any]


def batch_output_handler(
    handler: str, arguments: Mapping[str, Any] | None = None
) -> BatchOutputHandler:
    """Return the handler of that path, which sees the output of a whole batch.

    Args:
        handler: the class, as module.Class.
        arguments: of the class.

    Raises:
        ComponentError: there is no such class.
    """
    return BatchOutputHandler(_own(handler)(**(arguments or {})))


class BatchOutputHandler:
    """A handler around another handler, for which ``engine.state.output`` is a dictionary.

    After ``MODEL_COMPLETED`` MONAI keeps a list with one dictionary for each case. While the
    handler inside is called, the output is one dictionary again: tensors of one shape are stacked,
    the loss is the batch's, and other values are a list. The handler may read it; to
    change the output, it has to listen to an earlier event.
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def attach(self, engine: Engine) -> None:
        """Let the handler inside register with the engine."""
        self.handler.attach(_BatchOutputEngine(engine))


class _BatchOutputEngine:
    """The engine as the handler inside sees it while it registers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def add_event_handler(
        self, event_name: Any, handler: Callback, *args: Any, **kwargs: Any
    ) -> RemovableEventHandle:
        def call(engine: Engine) -> Any:
            state: Any = engine.state  # ignite takes an output for a number
            before = state.output
            items = before if isinstance(before, list) else []
            if not items or not all(isinstance(item, Mapping) for item in items):
                return handler(engine, *args, **kwargs)
            shared = [key for key in items[0] if all(key in item for item in items)]
            state.output = {key: _joined([item[key] for item in items]) for key in shared}
            try:
                return handler(engine, *args, **kwargs)
            finally:
                state.output = before

        return self._engine.add_event_handler(event_name, call)

    def on(self, event_name: Any, *args: Any, **kwargs: Any) -> Callable[[Callback], Callback]:
        def decorate(handler: Callback) -> Callback:
            self.add_event_handler(event_name, handler, *args, **kwargs)
            return handler

        return decorate


def _joined(values: list[Any]) -> Any:
    numbers = all(
        isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.ndim == 0)
        for value in values
    )
    if numbers and all(bool(value == values[0]) for value in values):
        return values[0]  # MONAI has given each case the batch's own number
    shapes = {value.shape if isinstance(value, torch.Tensor) else None for value in values}
    return values if None in shapes or len(shapes) > 1 else torch.stack(values)


# --- Trainers ------------------------------------------------------------------------------------


class AdditionalEvents:
    """Calls ``_register_additional_events`` of a MONAI engine, as MONAI did until 0.8.

    ``class CustomTrainer(AdditionalEvents, SupervisedTrainer)``: the method is called once, before
    the handlers are attached, so that they can listen to the events that it registers. New code
    passes ``event_names`` to MONAI's engine instead.
    """

    _additional_events_registered = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._register_additional_events_once()  # an engine without handlers

    def _register_handlers(self, handlers: Sequence[Any]) -> None:
        self._register_additional_events_once()
        super()._register_handlers(handlers)  # type: ignore[misc]  # of the engine next to this

    def _register_additional_events_once(self) -> None:
        if not self._additional_events_registered:
            self._additional_events_registered = True
            self._register_additional_events()

    def _register_additional_events(self) -> None:
        """Do nothing; the engine's own class calls ``self.register_events(*CustomEvents)`` here."""


# --- By path -------------------------------------------------------------------------------------


def _own(path: str) -> Callable[..., Any]:
    """Return the class of a path; modules of the MMAR's ``custom`` folder are found too."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ComponentError(f"{path!r} is not a path; write module.Class")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ComponentError(f"{path!r}: {error}") from error
    if not hasattr(module, name):
        names = [key for key in vars(module) if not key.startswith("_")]
        advice = did_you_mean(name, names)
        raise ComponentError(f"the module {module_name!r} has no {name!r}. {advice}")
    function: Callable[..., Any] = getattr(module, name)
    return function
