"""Asking once whether the licence of a bundled model suits the user: it is narrower than that of the code."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from .priors import PriorCard

SETTINGS_KEY = "DiffuSAMSegment/AcceptedLicences/"


def acceptsLicence(card: PriorCard) -> bool:
    """Whether the user accepts the licence of a prior, now or earlier; one of the user's own is not asked about."""
    key = SETTINGS_KEY + card.name
    if not card.bundled or slicer.app.testingEnabled():
        return True
    if slicer.util.settingsValue(key, "", converter=str) == card.licence:
        return True
    text = _(
        "The prior {title}, the model that comes with this extension, has a licence of its own:\n\n{licence}.\n\n"
        "It is not for clinical use. Do you accept this?"
    ).format(title=card.title, licence=card.licence.rstrip("."))
    if not slicer.util.confirmOkCancelDisplay(text, _("Licence")):
        return False
    qt.QSettings().setValue(key, card.licence)
    return True
