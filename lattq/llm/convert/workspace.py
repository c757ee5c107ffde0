"""The folder of a conversion in progress: interrupted runs continue, finished ones appear at once."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lattq.errors import DamagedFileError, InvalidInputError, LattqError
from lattq.llm.convert.report import LayerRow
from lattq.quantized import Quantized

__all__ = ["Workspace", "check_free", "partial"]

DIGEST = 16
NOTES = "notes.json"
LAYOUT = 2  # of the folder: other builds kept other things in it
KEPT = ("layers", "maps")  # folders of what a repeated call continues from


class Workspace:
    """`OUT.partial`: a manifest of the settings, notes of what was decided, and a file per quantized layer and map.

    Every file is written beside its place and then moved there. One process at a time may work in the folder.

    Parameters
    ----------
    out : directory to create
    settings : what the result depends on

    Raises
    ------
    InvalidInputError : if `out` holds something, cannot be written, an interrupted run had other settings, or another
        process is at work on the same `out`
    """

    def __init__(self, out: str | Path, settings: dict[str, Any]) -> None:
        self.out = Path(out).absolute()
        self.root = partial(self.out)
        check_free(self.out)
        try:
            for folder in KEPT:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(self.root / "lock", blocking=False)
            self.lock.acquire()
        except Timeout:
            msg = f"another process works in {self.root}; wait for it, or choose another `out`"
            raise InvalidInputError(msg) from None
        except OSError as error:
            if self.empty():
                self.discard()
            msg = f"cannot write {self.root} ({error}); choose an `out` in a folder you may write to"
            raise InvalidInputError(msg) from None
        try:
            self._resume({"workspace": LAYOUT} | settings)
            self.notes: dict[str, Any] = self._read(NOTES) or {}
        except BaseException:
            if self.empty():  # nothing to continue from
                self.discard()
            self.close()
            raise

    def close(self) -> None:
        """Let other processes in."""
        self.lock.release()

    def _resume(self, settings: dict[str, Any]) -> None:
        text = json.dumps(settings)
        if self.empty() and not self._began_with(text):  # nothing is lost by starting anew
            (self.root / NOTES).unlink(missing_ok=True)
            self._write("manifest.json", text.encode())
            return
        found = self._read("manifest.json") or {}
        changed = sorted(key for key in found.keys() | settings.keys() if found.get(key) != settings.get(key))
        if changed:
            msg = (
                f"{self.root} holds an interrupted run with other settings ({', '.join(changed)} differ); "
                "repeat it as it was to continue, or delete that folder to start anew"
            )
            raise InvalidInputError(msg)

    def _began_with(self, settings: str) -> bool:
        """Whether the folder is of a run with the same settings."""
        path = self.root / "manifest.json"
        return path.exists() and path.read_bytes() == settings.encode()

    def note(self, what: str, found: Any) -> None:
        """Keep something that JSON can hold, by a name."""
        self.notes[what] = found
        self._write(NOTES, json.dumps(self.notes).encode())

    def noted(self, what: str) -> Any:
        """What `note` kept; None if nothing."""
        return self.notes.get(what)

    def put(self, value: float | int, name: str, payload: bytes, row: LayerRow) -> None:
        """Store a quantized layer."""
        text = json.dumps(dataclasses.asdict(row)).encode()
        self.put_body(self._layer(value, name), len(text).to_bytes(4, "little") + text + payload)

    def get(self, value: float | int, name: str) -> tuple[Quantized, LayerRow] | None:
        """A stored layer; None if it is missing or was damaged, so that it is made again."""
        body = self.body(self._layer(value, name))
        if body is None:
            return None
        end = 4 + int.from_bytes(body[:4], "little")
        stored = json.loads(body[4:end])
        row = LayerRow(**{**stored, "shape": tuple(stored["shape"])})
        return Quantized.from_payload(body[end:], row.shape), row

    def put_body(self, name: str, body: bytes) -> None:
        """Write a file with its hash in front."""
        self._write(name, hashlib.blake2b(body, digest_size=DIGEST).digest() + body)

    def body(self, name: str) -> bytes | None:
        """What `put_body` wrote; None if it is missing or was damaged."""
        path = self.root / name
        if not path.exists():
            return None
        blob = path.read_bytes()
        digest, body = blob[:DIGEST], blob[DIGEST:]
        return body if hashlib.blake2b(body, digest_size=DIGEST).digest() == digest else None

    def model_directory(self) -> Path:
        """An empty folder for the finished model."""
        path = self.root / "model"
        shutil.rmtree(path, ignore_errors=True)
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            msg = f"cannot write {path} ({error}); make room and repeat the call: it continues where it stopped"
            raise LattqError(msg) from error
        return path

    def publish(self) -> None:
        """Move the finished model to `out` and remove the rest."""
        try:
            if self.out.exists():
                self.out.rmdir()  # empty, or this fails
            (self.root / "model").rename(self.out)
        except OSError as error:
            msg = f"cannot move the finished model to {self.out} ({error}); it waits in {self.root / 'model'}"
            raise LattqError(msg) from error
        self.discard()

    def empty(self) -> bool:
        """Whether no layer and no map has been stored yet, so that nothing is lost without it."""
        return not any(path for folder in KEPT for path in (self.root / folder).glob("*"))

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _layer(self, value: float | int, name: str) -> str:
        return f"layers/{_key(value)} {name}"

    def _read(self, name: str) -> Any:
        path = self.root / name
        if not path.exists():
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            msg = f"{path} is damaged ({error}); delete {self.root} to start anew"
            raise DamagedFileError(msg) from None

    def _write(self, name: str, data: bytes) -> None:
        path = self.root / name
        fresh = self.root / "writing"
        try:
            fresh.write_bytes(data)
            fresh.replace(path)
        except OSError as error:
            msg = f"cannot write {path} ({error}); make room and repeat the call: it continues where it stopped"
            raise LattqError(msg) from error


def partial(out: Path) -> Path:
    """The folder beside `out` in which it is made."""
    return out.with_name(out.name + ".partial")


def check_free(out: Path) -> None:
    """Raise `InvalidInputError` unless `out` is missing or an empty directory."""
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        msg = f"cannot read `out` = {out} ({error}); choose another place"
        raise InvalidInputError(msg) from None
    if taken:
        msg = f"`out` = {out} exists and is not an empty directory; choose another or remove it"
        raise InvalidInputError(msg)


def _key(value: float | int) -> str:
    return float(value).hex()
