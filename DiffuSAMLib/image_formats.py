"""The kinds of image files that can be read, as code and the user are told."""

from __future__ import annotations

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")
FORMATS_HINT = "Give a NIfTI (.nii, .nii.gz), NRRD or MetaImage (.mha, .mhd) file, or a DICOM folder."
