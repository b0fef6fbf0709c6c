"""Which priors there are, and what they are."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from slicer.i18n import tr as _

from .errors import hintOf
from .lib_location import addLibraryToPath


@dataclass(frozen=True)
class PriorCard:
    """What the panel shows of a prior; `problem` is empty for one that can be used.

    :param bundled: whether it comes with the extension
    :param source: where its file comes from
    :param origin: when and from how many cases it was made
    """

    name: str
    title: str
    organs: tuple[str, ...]
    modalities: tuple[str, ...]
    licence: str
    source: str
    origin: str
    backbone: str
    problem: str = ""
    bundled: bool = False

    def html(self) -> str:
        """As rich text, one row for each fact."""
        if self.problem:
            return f"<b>{escape(self.problem)}</b>"
        rows = (
            (_("Organs"), ", ".join(self.organs)),
            (_("Modality"), ", ".join(self.modalities)),
            (_("Licence"), self.licence),
            (_("Source"), self.source),
            (_("Made"), self.origin),
            (_("Backbone"), self.backbone),
        )
        cells = "".join(
            f"<tr><td>{escape(key)}:&nbsp;</td><td>{escape(value)}</td></tr>" for key, value in rows
        )
        return f"<table>{cells}</table>"


def priorCards() -> list[PriorCard]:
    """Every prior of the catalogue and of the user."""
    addLibraryToPath()
    from DiffuSAMLib import catalogue
    from DiffuSAMLib.errors import DiffuSAMError
    from DiffuSAMLib.prior_files import read_header

    listed = catalogue.list_weights()
    states = {weights.entry.name: weights.status for weights in listed}
    cards = []
    for weights in listed:
        entry = weights.entry
        if entry.kind != "prior":
            continue
        try:
            header = read_header(catalogue.locate(entry.name))
        except DiffuSAMError as error:
            problem = f"{error.message} {hintOf(error.code, error.hint)}".strip()
            cards.append(
                PriorCard(entry.name, shownTitle(weights), (), (), entry.licence, "", "", "", problem)
            )
            continue
        backbone = header.backbone.name
        problem = ""
        if states.get(backbone) not in ("bundled", "downloaded"):
            problem = _('Its backbone {name} is not on this computer; open "Models...".').format(
                name=backbone
            )
        organs = tuple(label.name for label in header.labels)
        origin = _("{date}; its weights have seen {count} cases").format(
            date=header.created[:10], count=len(header.training.get("cases", ()))
        )
        cards.append(
            PriorCard(
                entry.name,
                shownTitle(weights),
                organs,
                header.modalities,
                header.licence,
                _sourceText(weights.status),
                origin,
                backbone,
                problem,
                bundled=weights.status == "bundled",
            )
        )
    return cards


def shownTitle(weights) -> str:
    """What weights of the catalogue are called: those of the user's own by their name, for titles may be alike."""
    entry = weights.entry
    if weights.status != "imported" or entry.kind != "prior" or entry.title == entry.name:
        return entry.title
    return f"{entry.name}: {entry.title}"


def _sourceText(status: str) -> str:
    return {
        "bundled": _("comes with the extension"),
        "downloaded": _("downloaded"),
        "imported": _("trained on this computer, or imported"),
    }[status]
