"""A bundle's manifest.toml: written here, checked here. Needs nothing but the standard library.

Promises: what is written states each file's size and sha256, and `verify` names the first file that is not as stated.
"""

import hashlib
import tomllib
from pathlib import Path

FORMAT = 1
FILES = ("image.onnx", "text.onnx", "tokenizer.json", "vocabulary.txt")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, name: str, tables: dict[str, dict]) -> None:
    """`tables` in order; the [files] tables are made from what lies in the folder."""
    lines = [f"format = {FORMAT}", f"name = {_toml(name)}"]
    for table, fields in tables.items():
        lines += ["", f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in fields.items())]
    for file in FILES:
        if (path := folder / file).is_file():
            lines += ["", f'[files."{file}"]', f"bytes = {path.stat().st_size}", f'sha256 = "{sha256(path)}"']
    (folder / "manifest.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict:
    return tomllib.loads((folder / "manifest.toml").read_text(encoding="utf-8"))


def verify(folder: Path) -> None:
    for file, stated in read_manifest(folder)["files"].items():
        path = folder / file
        if not path.is_file():
            raise ValueError(f"{path}: the manifest names it, but it is not there")
        if (size := path.stat().st_size) != stated["bytes"]:
            raise ValueError(f"{path}: {size} bytes, the manifest says {stated['bytes']}; export the bundle again")
        if (digest := sha256(path)) != stated["sha256"]:
            raise ValueError(f"{path}: sha256 {digest}, the manifest says {stated['sha256']}; export the bundle again")


def _toml(value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
