"""Names that Slicer's and CTK's C++ classes show to Python, and those of slicer.util."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path


def split_signature(signature: str) -> tuple[str, list[str]]:
    """`"f(int,QList<a,b>)"` -> `("f", ["int", "QList<a,b>"])`."""
    name, _, rest = signature.partition("(")
    arguments = [a.strip() for a in re.split(r",(?![^<]*>)", rest.rsplit(")", 1)[0])]
    return name.strip(), [a for a in arguments if a]


class Facts:
    def __init__(self, path: Path) -> None:
        data = json.loads(path.read_text())
        self.classes: dict[str, dict] = data["classes"]
        self.util_names = frozenset(data["slicer_util"])

    def ancestry(self, name: str) -> list[str]:
        """The class and those of its base classes that are Slicer's or CTK's."""
        found = []
        while name in self.classes:
            found.append(name)
            name = self.classes[name]["base"]
        return found

    def qt_base(self, name: str) -> str:
        return self.classes[self.ancestry(name)[-1]]["base"]

    def properties(self, name: str) -> set[str]:
        return {p for c in self.ancestry(name) for p in self.classes[c]["properties"]}

    def signals(self, name: str) -> set[str]:
        return {s for c in self.ancestry(name) for s in self.classes[c]["signals"]}

    def methods(self, name: str) -> dict[str, set[int]]:
        """Method names, each with the numbers of arguments it may be called with."""
        counts: dict[str, set[int]] = {}
        for c in self.ancestry(name):
            for signature in self.classes[c]["methods"]:
                method, arguments = split_signature(signature)
                counts.setdefault(method, set()).add(len(arguments))
        return counts

    def names(self, name: str) -> set[str]:
        """All names of the class that Python can use, those of its Qt base class excepted."""
        signals = {split_signature(s)[0] for s in self.signals(name)}
        return self.properties(name) | signals | set(self.methods(name))


@cache
def facts() -> Facts:
    return Facts(Path(__file__).with_name("facts.json"))
