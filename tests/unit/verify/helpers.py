"""The verifier and the maker of its vectors, loaded from their folder, and the ways in which tests run them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).resolve().parents[3] / "verify"
VERIFIER = FOLDER / "redflag_verify.py"


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# The one that the product imports: with a second copy of it in the process, an error of the one is not an error of the other
verifier: Any = importlib.import_module("redflag_verify")
make: Any = _load("redflag_vectors_make", FOLDER / "vectors" / "make.py")

KEY = make.SIGNER.verifier.vkey()
TRUST = verifier.Trust(verifier.Key.parse(KEY, verifier.ED25519))
WITNESS_KEYS = [witness.verifier.vkey() for witness in make.WITNESSES]


def vector(name: str) -> Any:
    """A vector file, as it is in the folder."""
    return json.loads((FOLDER / "vectors" / name).read_text(encoding="utf-8"))


def run(capsys: Any, *arguments: object, key: str = KEY) -> tuple[int, dict[str, Any]]:
    """A command of the verifier: its exit code and its JSON."""
    code = verifier.main([str(one) for one in (*arguments, "--key", key, "--json")])
    return code, json.loads(capsys.readouterr().out)


def refused(call: Any, *arguments: Any) -> str:
    """What a function of the verifier says is wrong, or "" if it is content."""
    try:
        call(*arguments)
    except verifier.NotVerified as error:
        return f"{error.where}: {error.what}; {error.says}; {error.expected}"
    return ""


def proof_refused(data: bytes) -> str:
    """What is wrong with a proof file."""
    return refused(verifier.verify_proof, data, TRUST, verifier.Report())


def bundle_refused(path: Path, data: bytes | dict[str, bytes], earlier: Any = None) -> str:
    """What is wrong with a bundle, given as its bytes or files."""
    path.write_bytes(data if isinstance(data, bytes) else make.zipped(data.items()))
    return refused(verifier.verify_bundle, path, TRUST, verifier.Report(), earlier)


def write_log(folder: Path, files: dict[str, bytes]) -> Path:
    """A log's files as a directory."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def log_refused(folder: Path, pruned: int = 0) -> str:
    """What is wrong with a log's directory."""
    return refused(verifier.verify_log, folder, TRUST, verifier.Report(), None, pruned)
