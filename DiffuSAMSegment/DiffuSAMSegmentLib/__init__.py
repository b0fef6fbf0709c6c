"""The parts of the Slicer module; DiffuSAMSegment.py wires them."""
