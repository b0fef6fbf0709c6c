"""What a parameter may be, when it is valid, and the text by which a parameter node keeps it."""

from __future__ import annotations

import enum
import pathlib
import types
import typing
from collections.abc import Callable, Iterable, MutableSequence
from dataclasses import dataclass
from typing import Annotated, Any

import slicer

PATH_TYPES = (
    pathlib.Path,
    pathlib.PosixPath,
    pathlib.WindowsPath,
    pathlib.PurePath,
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
)


class Validator:
    """Refuses values by raising."""

    def validate(self, value: Any) -> None:
        raise NotImplementedError


class NotNone(Validator):
    def validate(self, value: Any) -> None:
        if value is None:
            raise ValueError("Value must not be None.")


class IsInstance(Validator):
    def __init__(self, classtype: Any) -> None:
        self.classtype = classtype

    def validate(self, value: Any) -> None:
        if value is not None and not isinstance(value, self.classtype):
            raise TypeError(f"Value must be of type {self.classtype}, is {value!r} ({type(value).__name__}).")


class WithinRange(Validator):
    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within [{self.minimum}, {self.maximum}], is {value}.")


class Minimum(Validator):
    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}.")


class Maximum(Validator):
    def __init__(self, maximum: float) -> None:
        self.maximum = maximum

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}.")


class Choice(Validator):
    def __init__(self, choices: Iterable) -> None:
        self.choices = choices

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value must be one of {self.choices}, is {value!r}.")


class Exclude(Validator):
    def __init__(self, excludedValues: Iterable) -> None:
        self.excludedValues = excludedValues

    def validate(self, value: Any) -> None:
        if value in self.excludedValues:
            raise ValueError(f"Value must not be one of {self.excludedValues}, is {value!r}.")


class Default:
    def __init__(self, value: Any = None, *, generator: Callable | None = None) -> None:
        self._value, self._generator = value, generator

    @property
    def value(self) -> Any:
        return self._generator() if self._generator else self._value


@dataclass
class Decimals:
    value: int


@dataclass
class SingleStep:
    value: float


def split_annotated(hint: Any) -> tuple[Any, list[Any]]:
    """`Annotated[int, a, b]` -> `(int, [a, b])`; anything else has no annotations."""
    if typing.get_origin(hint) is Annotated:
        bare, *annotations = typing.get_args(hint)
        return bare, annotations
    return hint, []


def is_node_class(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def node_classes(hint: Any) -> tuple[type, ...]:
    """The node classes of a node parameter, or an empty tuple for any other."""
    kind = split_annotated(hint)[0]
    kinds = typing.get_args(kind) if typing.get_origin(kind) is typing.Union else (kind,)
    if all(is_node_class(k) or k is type(None) for k in kinds):
        return tuple(k for k in kinds if k is not type(None))
    return ()


class Codec:
    """Keeps one value as text under the parameter's name."""

    def __init__(self, default: Any, to_text: Callable[[Any], str], from_text: Callable[[str], Any]) -> None:
        self.default, self._to_text, self._from_text = default, to_text, from_text
        self.validators: list[Validator] = []

    def validate(self, value: Any) -> None:
        for validator in self.validators:
            validator.validate(value)

    def is_in(self, node: Any, name: str) -> bool:
        return node.HasParameter(name)

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        node.SetParameter(name, self._to_text(value))

    def read(self, node: Any, name: str) -> Any:
        return self._from_text(node.GetParameter(name))

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)


class NodeCodec(Codec):
    """A node reference of that role; an empty parameter says that None was chosen."""

    def __init__(self) -> None:
        super().__init__(None, str, str)

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: Any, name: str) -> None:
        super().remove(node, name)
        node.RemoveNodeReferenceIDs(name)


class ObservedList(MutableSequence):
    """A list that is written to the parameter node with every change."""

    def __init__(self, save: Callable[[list], None], values: list) -> None:
        self._save, self._values = save, values

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def __len__(self) -> int:
        return len(self._values)

    def __setitem__(self, index: Any, value: Any) -> None:
        self._change(lambda values: values.__setitem__(index, value))

    def __delitem__(self, index: Any) -> None:
        self._change(lambda values: values.__delitem__(index))

    def insert(self, index: int, value: Any) -> None:
        self._change(lambda values: values.insert(index, value))

    def _change(self, change: Callable[[list], None]) -> None:
        values = list(self._values)
        change(values)
        self._save(values)
        self._values = values

    def __eq__(self, other: object) -> bool:
        return self._values == (other._values if isinstance(other, ObservedList) else other)

    def __repr__(self) -> str:
        return f"ObservedList({self._values})"

    __hash__ = None


class ListCodec(Codec):
    def __init__(self, element: Codec) -> None:
        super().__init__([], str, str)
        self._element = element
        self.validators = [IsInstance((list, ObservedList)), NotNone()]

    def is_in(self, node: Any, name: str) -> bool:
        return node.HasParameter(f"{name}_len")

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        for item in value:
            self._element.validate(item)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            for index, item in enumerate(value):
                self._element.write(node, f"{name}_{index}", item)
            node.SetParameter(f"{name}_len", str(len(value)))

    def read(self, node: Any, name: str) -> ObservedList:
        length = int(node.GetParameter(f"{name}_len"))
        values = [self._element.read(node, f"{name}_{index}") for index in range(length)]
        return ObservedList(lambda changed: self.write(node, name, changed), values)

    def remove(self, node: Any, name: str) -> None:
        if self.is_in(node, name):
            for index in range(int(node.GetParameter(f"{name}_len"))):
                self._element.remove(node, f"{name}_{index}")
            node.UnsetParameter(f"{name}_len")


class UnionCodec(Codec):
    """One codec for each alternative, with its number after the name."""

    def __init__(self, codecs: list[Codec], *, default: Any) -> None:
        super().__init__(default, str, str)
        self._codecs = codecs

    def _fitting(self, value: Any) -> int:
        for index, codec in enumerate(self._codecs):
            try:
                codec.validate(value)
            except (TypeError, ValueError):
                continue
            return index
        raise TypeError(f"No alternative of the type takes {value!r}.")

    def is_in(self, node: Any, name: str) -> bool:
        return any(codec.is_in(node, f"{name}.{index}") for index, codec in enumerate(self._codecs))

    def write(self, node: Any, name: str, value: Any) -> None:
        self.validate(value)
        index = self._fitting(value)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            self._codecs[index].write(node, f"{name}.{index}", value)

    def read(self, node: Any, name: str) -> Any:
        for index, codec in enumerate(self._codecs):
            if codec.is_in(node, f"{name}.{index}"):
                return codec.read(node, f"{name}.{index}")
        raise KeyError(name)

    def remove(self, node: Any, name: str) -> None:
        for index, codec in enumerate(self._codecs):
            codec.remove(node, f"{name}.{index}")


class _IsNone(Validator):
    def validate(self, value: Any) -> None:
        if value is not None:
            raise TypeError(f"Value must be None, is {value!r}.")


def _bare_codec(kind: Any) -> Codec:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        raise TypeError(
            f"Slicer's wrapper knows Union[...] and Optional[...], not {kind}; nodes may be None anyway."
        )
    if origin is typing.Union:
        optional = len(arguments) == 2 and arguments[1] is type(None)
        codecs = [codec_for(a) for a in arguments]
        return UnionCodec(codecs, default=None if optional else codecs[0].default)
    if origin is list:
        return ListCodec(codec_for(arguments[0]))
    if kind is type(None):
        codec, validators = Codec(None, lambda _: "True", lambda _: None), [_IsNone()]
    elif is_node_class(kind):
        codec, validators = NodeCodec(), [IsInstance(kind)]
    elif kind in (int, float):
        codec, validators = (
            Codec(kind(), str, kind),
            [NotNone(), IsInstance((float, int) if kind is float else int)],
        )
    elif kind is bool:
        codec, validators = Codec(False, str, lambda text: text == "True"), [NotNone(), IsInstance(bool)]
    elif kind is str or kind in PATH_TYPES:
        codec, validators = Codec(kind(), str, kind), [NotNone(), IsInstance(kind)]
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        codec = Codec(next(iter(kind)), lambda value: value.name, lambda text: kind[text])
        validators = [NotNone(), IsInstance(kind)]
    else:
        raise TypeError(f"The test host's parameter node does not know the type {kind}.")
    codec.validators = list(validators)
    return codec


def codec_for(hint: Any) -> Codec:
    """Raises TypeError for a type that the host does not know, or an annotation that nothing uses."""
    kind, annotations = split_annotated(hint)
    codec = _bare_codec(kind)
    for annotation in annotations:
        if isinstance(annotation, Validator):
            codec.validators = [*codec.validators, annotation]
        elif isinstance(annotation, Default):
            codec.default = annotation.value
        elif not isinstance(annotation, Decimals | SingleStep):
            raise TypeError(f"Slicer would not use the annotation {annotation!r}.")
    return codec
