"""Writes size and sha256 of the bundled weights into catalogue.json; run after a bundled file was replaced."""

import hashlib
import json
from pathlib import Path

folder = Path(__file__).parent
catalogue = folder / "catalogue.json"
content = json.loads(catalogue.read_text(encoding="utf-8"))
for entry in content["weights"]:
    path = folder / entry["filename"]
    if entry["bundled"] and path.is_file():
        entry["bytes"] = path.stat().st_size
        entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
catalogue.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
