"""Makes the test vectors in this folder, from the project's own modules: `python verify/vectors/make.py`.

Every key, salt and time is derived from a word, so that the files come out the same each time. The keys are for tests only.
The tests use the functions here too, to make logs, proofs and bundles of their own.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from redflag.audit import canonical, merkle
from redflag.audit.checkpoint import COSIGNATURE, DASH, Signer, Verifier
from redflag.audit.proofs import Proof, disclosed

FOLDER = Path(__file__).resolve().parent
ORIGIN = "vectors.example/log"
BEGAN = datetime.datetime(2026, 11, 23, 23, 57, 52, 14786, datetime.UTC)
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493

# RFC 8032 §7.1: name, secret key, public key, message, signature
RFC_8032 = (
    (
        "TEST 1",
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe246551"
        "41438e7a100b",
    ),
    (
        "TEST 2",
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d"
        "291612bb0c00",
    ),
    (
        "TEST 3",
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027"
        "beceea1ec40a",
    ),
    (
        "TEST 1024",
        "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
        "08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12ee50f8f54e9f77b1e355f6c50544e23fb143"
        "3ddf73be84d879de7c0046dc4996d9e773f4bc9efe5738829adb26c81b37c93a1b270b20329d658675fc6ea534e0810a4432826bf58c941efb65"
        "d57a338bbd2e26640f89ffbc1a858efcb8550ee3a5e1998bd177e93a7363c344fe6b199ee5d02e82d522c4feba15452f80288a821a579116ec6d"
        "ad2b3b310da903401aa62100ab5d1a36553e06203b33890cc9b832f79ef80560ccb9a39ce767967ed628c6ad573cb116dbefefd75499da96bd68"
        "a8a97b928a8bbc103b6621fcde2beca1231d206be6cd9ec7aff6f6c94fcd7204ed3455c68c83f4a41da4af2b74ef5c53f1d8ac70bdcb7ed185ce"
        "81bd84359d44254d95629e9855a94a7c1958d1f8ada5d0532ed8a5aa3fb2d17ba70eb6248e594e1a2297acbbb39d502f1a8c6eb6f1ce22b3de1a"
        "1f40cc24554119a831a9aad6079cad88425de6bde1a9187ebb6092cf67bf2b13fd65f27088d78b7e883c8759d2c4f5c65adb7553878ad575f9fa"
        "d878e80a0c9ba63bcbcc2732e69485bbc9c90bfbd62481d9089beccf80cfe2df16a2cf65bd92dd597b0707e0917af48bbb75fed413d238f5555a"
        "7a569d80c3414a8d0859dc65a46128bab27af87a71314f318c782b23ebfe808b82b0ce26401d2e22f04d83d1255dc51addd3b75a2b1ae0784504"
        "df543af8969be3ea7082ff7fc9888c144da2af58429ec96031dbcad3dad9af0dcbaaaf268cb8fcffead94f3c7ca495e056a9b47acdb751fb73e6"
        "66c6c655ade8297297d07ad1ba5e43f1bca32301651339e22904cc8c42f58c30c04aafdb038dda0847dd988dcda6f3bfd15c4b4c4525004aa06e"
        "eff8ca61783aacec57fb3d1f92b0fe2fd1a85f6724517b65e614ad6808d6f6ee34dff7310fdc82aebfd904b01e1dc54b2927094b2db68d6f903b"
        "68401adebf5a7e08d78ff4ef5d63653a65040cf9bfd4aca7984a74d37145986780fc0b16ac451649de6188a7dbdf191f64b5fc5e2ab47b57f7f7"
        "276cd419c17a3ca8e1b939ae49e488acba6b965610b5480109c8b17b80e1b7b750dfc7598d5d5011fd2dcc5600a32ef5b52a1ecc820e308aa342"
        "721aac0943bf6686b64b2579376504ccc493d97e6aed3fb0f9cd71a43dd497f01f17c0e2cb3797aa2a2f256656168e6c496afc5fb93246f6b111"
        "6398a346f1a641f3b041e989f7914f90cc2c7fff357876e506b50d334ba77c225bc307ba537152f3f1610e4eafe595f6d9d90d11faa933a15ef1"
        "369546868a7f3a45a96768d40fd9d03412c091c6315cf4fde7cb68606937380db2eaaa707b4c4185c32eddcdd306705e4dc1ffc872eeee475a64"
        "dfac86aba41c0618983f8741c5ef68d3a101e8a3b8cac60c905c15fc910840b94c00a0b9d0",
        "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350aa5371b1508f9f4528ecea23c436d94b5e8fcd4f681e30a6ac00"
        "a9704a188a03",
    ),
    (
        "TEST SHA(abc)",
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9be"
        "f1177331a704",
    ),
)


def derived(word: str) -> bytes:
    """32 bytes that are the same each time."""
    return hashlib.sha256(f"redflag test vectors: {word}".encode()).digest()


def private_key(word: str) -> Ed25519PrivateKey:
    """A key for tests."""
    return Ed25519PrivateKey.from_private_bytes(derived(f"key {word}"))


@dataclass(frozen=True)
class Witness:
    """A witness of the log, for tests."""

    name: str
    private: Ed25519PrivateKey

    @property
    def verifier(self) -> Verifier:
        """Its public key."""
        return Verifier(self.name, self.private.public_key().public_bytes_raw(), COSIGNATURE)

    def cosign(self, note: str, moment: int) -> str:
        """The note with this witness's signature line (tlog-cosignature, "Ed25519 signed message")."""
        text = note.rpartition("\n\n")[0] + "\n"
        signature = self.private.sign(f"cosignature/v1\ntime {moment}\n{text}".encode())
        line = base64.b64encode(self.verifier.id + moment.to_bytes(8, "big") + signature).decode()
        return f"{note}{DASH} {self.name} {line}\n"


LOG_KEY = private_key("log")
SIGNER = Signer(ORIGIN, LOG_KEY)
WITNESSES = tuple(Witness(f"witness.example/w{i}", private_key(f"witness {i}")) for i in (1, 2))
OTHER = Signer(ORIGIN, private_key("another log"))


def sign_text(text: str, key: Ed25519PrivateKey = LOG_KEY, name: str = ORIGIN) -> str:
    """A note of any text (signed-note)."""
    key_id = Verifier(name, key.public_key().public_bytes_raw()).id
    return f"{text}\n{DASH} {name} {base64.b64encode(key_id + key.sign(text.encode())).decode()}\n"


def record(number: int, step: int | None, **changes: Any) -> dict[str, Any]:
    """A record as the database has it: one of the four transitions of a command, by its step in a row of them, or a note."""
    command, version = divmod(step or 0, 4)
    moment = BEGAN + datetime.timedelta(seconds=number)
    sent, ended = version >= 1, version == 3
    made: dict[str, Any] = dict.fromkeys((*canonical.PLAIN, *canonical.COMMITTED))
    made |= {
        "id": uuid.UUID(bytes=derived(f"record {number}")[:16], version=4),
        "kind": "transition",
        "created_at": moment,
        "executed_at": moment,
        "command_id": uuid.UUID(bytes=derived(f"command {command}")[:16], version=4),
        "agent_id": uuid.UUID(bytes=derived(f"agent {command % 3}")[:16], version=4),
        "version": version + 1,
        "command_type": "install_updates",
        "actor": ("user:ada", "agent:host-7", "agent:host-7", "service:sweeper@replica-1")[version],
        "result": ("pending", "sent", "running", "timed_out")[version],
        "message": f"command {command}: step {version + 1} \N{EM DASH} \U0001f6a9" if version else None,
        "metadata": {"address": f"192.0.2.{command % 250}", "request_id": f"r{number}", "share": "0.5"},
        "params": {"packages": ["openssl", "zlib"], "retries": command} if version == 0 else None,
        "sent_at": moment - datetime.timedelta(seconds=version - 1) if sent else None,
        "completed_at": moment if ended else None,
        "stdout": f"line {number}\n\t\x1b[31mred\x1b[0m\n" if ended else None,
        "stderr": "" if ended else None,
        "exit_code": number % 3 if ended else None,
        "duration_seconds": number if ended else None,
        "salt": derived(f"salt {number}"),
        "salts": None,
    }
    if step is None:
        made |= {
            "kind": "note",
            "command_id": None,
            "version": None,
            "command_type": None,
            "actor": "db:owner",
            "result": "success",
        }
    return made | changes


def records(count: int) -> list[dict[str, Any]]:
    """Records of commands whose versions run without a gap, and a note now and then."""
    return [record(i, None if i % 23 == 22 else i - i // 23) for i in range(count)]


def tiles_of(hashes: list[bytes]) -> merkle.Tiles:
    """All tiles of a tree, as tlog-tiles defines them."""
    levels = [hashes]
    while len(levels[-1]) >= merkle.WIDTH:
        below = levels[-1]
        levels.append([merkle.root_of(below[i : i + 256]) for i in range(0, len(below) - 255, 256)])

    def tile(level: int, index: int, width: int) -> bytes:
        return b"".join(levels[level][index * 256 : index * 256 + width])

    return tile


@dataclass(frozen=True)
class Log:
    """A log of records, of which any size can be signed and any part be shown."""

    records: list[dict[str, Any]]
    leaves: list[bytes]

    @classmethod
    def of(cls, found: list[dict[str, Any]]) -> Log:
        """The log of these records, in this order."""
        return cls(found, [canonical.leaf(one) for one in found])

    def hashes(self, size: int | None = None) -> list[bytes]:
        """The leaf hashes."""
        return [merkle.leaf_hash(leaf) for leaf in self.leaves[:size]]

    def reader(self, size: int | None = None) -> merkle.Reader:
        """The tree of the first `size`."""
        hashes = self.hashes(size)
        return merkle.Reader(len(hashes), tiles_of(hashes))

    def checkpoint(self, size: int | None = None, signer: Signer = SIGNER, witnesses: Iterable[Witness] = ()) -> str:
        """The signed head of the first `size`."""
        hashes = self.hashes(size)
        note = signer.sign(len(hashes), merkle.root_of(hashes))
        for i, witness in enumerate(witnesses):
            note = witness.cosign(note, 1_795_478_400 + i)
        return note

    def proof(self, position: int, size: int | None = None, note: str | None = None) -> str:
        """The tlog-proof of one record."""
        values, salts = disclosed(self.records[position])
        hashes = self.reader(size).inclusion(position)
        return Proof(position, self.leaves[position], hashes, note or self.checkpoint(size), values, salts).text()

    def directory(self, size: int | None = None) -> dict[str, bytes]:
        """The files of the log as tlog-tiles."""
        leaves = self.leaves[:size]
        files = {"checkpoint": self.checkpoint(size).encode()}
        tile = tiles_of(self.hashes(size))
        level, count = 0, len(leaves)
        while count:
            for index in range(-(-count // 256)):
                width = min(256, count - 256 * index)
                files[merkle.path(level, index, width)] = tile(level, index, width)
                if level == 0:
                    some = leaves[256 * index : 256 * index + width]
                    files[merkle.path("entries", index, width)] = b"".join(
                        len(one).to_bytes(2, "big") + one for one in some
                    )
            level, count = level + 1, count >> 8
        return files


def consistency_file(old: int, proof: list[bytes]) -> str:
    """A consistency proof as a file."""
    return "".join(f"{line}\n" for line in (f"old {old}", *(base64.b64encode(one).decode() for one in proof)))


def multiproof(reader: merkle.Reader, positions: list[int]) -> list[bytes]:
    """The roots of the largest subtrees that hold none of the positions (ascending), from left to right."""
    found: list[bytes] = []

    def walk(begin: int, end: int, first: int, last: int) -> None:
        if first == last:
            found.append(reader.subtree(begin, end))
        elif end - begin > 1:
            middle = begin + merkle.split(end - begin)
            cut = next((i for i in range(first, last) if positions[i] >= middle), last)
            walk(begin, middle, first, cut)
            walk(middle, end, cut, last)

    if reader.size:
        walk(0, reader.size, 0, len(positions))
    return found


def bundle_files(
    log: Log,
    positions: list[int],
    *,
    size: int | None = None,
    filters: Mapping[str, Any] | None = None,
    withheld: Iterable[str] = (),
    extra: Mapping[str, bytes] | None = None,
    old: int | None = None,
    witnesses: Iterable[Witness] = (),
    alter: Callable[[dict[str, bytes]], None] | None = None,
) -> dict[str, bytes]:
    """The files of an evidence bundle. `alter` may change them before the manifest is made and signed."""
    reader = log.reader(size)
    lines = []
    for position in positions:
        values, salts = disclosed(log.records[position])
        told = {
            "position": position,
            "leaf": log.leaves[position].decode(),
            "salts": {name: salt for name, salt in salts.items() if name not in set(withheld)},
            "values": {name: value for name, value in values.items() if name not in set(withheld)},
        }
        lines.append(canonical.encode(told) + b"\n")
    hashes = [base64.b64encode(one).decode() for one in multiproof(reader, positions)]
    files = {
        "checkpoint": log.checkpoint(size, witnesses=witnesses).encode(),
        "entries.jsonl": b"".join(lines),
        "leaves": "".join(
            f"{position} {base64.b64encode(merkle.leaf_hash(log.leaves[position])).decode()}\n"
            for position in positions
        ).encode(),
        "key": f"{SIGNER.verifier.vkey()}\n".encode(),
        "proof": "".join(f"{line}\n" for line in ("redflag multiproof/v1", f"size {reader.size}", *hashes)).encode(),
        "README.txt": b"Check this bundle with redflag_verify.py, which you got from its makers:\n"
        b"  python3 redflag_verify.py bundle THIS.zip --key VKEY\n"
        b"VKEY is the log's public key, which you got from its operator by another way.\n",
    } | dict(extra or {})
    if old is not None:
        files["consistency"] = consistency_file(old, reader.consistency(old)).encode()
    if alter:
        alter(files)
    manifest = {
        "format": "redflag evidence/v1",
        "origin": ORIGIN,
        "period": {"since": canonical.moment(BEGAN), "until": None},
        "filters": dict(filters or {}),
        "completeness": {
            "first_position": positions[0] if positions else None,
            "last_position": positions[-1] if positions else None,
            "count": len(positions),
            "filtered": bool(filters),
        },
    }
    return sealed(files, manifest)


def sealed(
    files: Mapping[str, bytes], manifest: Mapping[str, Any], key: Ed25519PrivateKey = LOG_KEY
) -> dict[str, bytes]:
    """The files with a manifest of them, signed."""
    kept = {name: data for name, data in files.items() if name not in {"manifest.json", "manifest.sig"}}
    hashed = {name: hashlib.sha256(data).hexdigest() for name, data in kept.items()}
    encoded = canonical.encode({**manifest, "files": hashed})
    signed = sign_text(f"redflag evidence/v1\n{hashlib.sha256(encoded).hexdigest()}\n", key)
    return kept | {"manifest.json": encoded, "manifest.sig": signed.encode()}


def zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip of these files."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, (2026, 11, 24, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def _ed25519() -> list[dict[str, Any]]:
    found = [
        {"name": f"RFC 8032 §7.1 {name}", "secret": secret, "public": public, "message": message, "signature": signature,
         "valid": True}
        for name, secret, public, message, signature in RFC_8032
    ]  # fmt: skip
    _, _, public, message, signature = RFC_8032[2]
    r, s = bytes.fromhex(signature[:64]), int.from_bytes(bytes.fromhex(signature[64:]), "little")
    field = 2**255 - 19

    def case(name: str, key: bytes, first: bytes, second: int) -> None:
        made = (first + second.to_bytes(32, "little")).hex()
        found.append({"name": name, "public": key.hex(), "message": message, "signature": made, "valid": False})

    key = bytes.fromhex(public)
    neutral = (1).to_bytes(32, "little")
    case("S + L: the same signature in another spelling", key, r, s + ED25519_ORDER)
    case("S = L", key, r, ED25519_ORDER)
    case("S = 0", key, r, 0)
    case("S with its highest bit set", key, r, s | 1 << 255)
    case("R with its sign changed", key, bytes([*r[:31], r[31] ^ 0x80]), s)
    case("A with its sign changed", bytes([*key[:31], key[31] ^ 0x80]), r, s)
    case("A is the neutral element, R too, S = 0: fits every message", neutral, neutral, 0)
    case("A is the point of order 2, R the neutral element, S = 0", (field - 1).to_bytes(32, "little"), neutral, 0)
    case("A is a point of order 4 (y = 0), R the neutral element, S = 0", bytes(32), neutral, 0)
    case(
        "A is y = p + 1: the neutral element, not in canonical encoding", (field + 1).to_bytes(32, "little"), neutral, 0
    )
    case("A is x = 0 with the sign set", bytes([1, *bytes(30), 0x80]), neutral, 0)
    case("A is no point of the curve (y = 2)", (2).to_bytes(32, "little"), r, s)
    case("R is no point of the curve (y = 2)", key, (2).to_bytes(32, "little"), s)
    case("R is y = p + 1, not in canonical encoding", key, (field + 1).to_bytes(32, "little"), s)
    return found


def _merkle(hashes: list[bytes]) -> dict[str, Any]:
    roots = [merkle.root_of(hashes[:size]).hex() for size in range(len(hashes) + 1)]
    inclusion, consistency = [], []
    for size in (1, 2, 3, 5, 7, 8):
        reader = merkle.Reader(size, tiles_of(hashes[:size]))
        inclusion += [
            {"size": size, "index": i, "proof": [one.hex() for one in reader.inclusion(i)]} for i in range(size)
        ]
        consistency += [
            {"size": size, "old": old, "proof": [one.hex() for one in reader.consistency(old)]}
            for old in range(size + 1)
        ]
    subsets = [
        {"size": 7, "positions": some,
         "proof": [one.hex() for one in multiproof(merkle.Reader(7, tiles_of(hashes[:7])), some)]}
        for some in ([], [0], [6], [2, 3], [1, 4], [0, 1, 2, 3, 4, 5, 6])
    ]  # fmt: skip
    return {"roots": roots, "inclusion": inclusion, "consistency": consistency, "subsets": subsets}


RFC_6962_LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")

CANONICAL = (
    None, True, "", "\u20ac$\u000f\nA'B\"\\\\\"/", "\u007f\u0080\u2028\u00f6", {"b": 1, "a": [], "": {}},
    {"\u20ac": "Euro", "\r": "CR", "\ufb33": "Hebrew", "1": "One", "\U0001f600": "Smiley", "\u0080": "Control", "\u00f6": "o"},
    [0, -1, 2**53 - 1, 1 - 2**53, "9007199254740992", "0.50"], {"deep": [[[{"a": None}]]]},
)  # fmt: skip
NOT_CANONICAL = (
    ('{"a":1,"a":1}', "a name twice"), ('{"b":1,"a":1}', "names out of order"), ('{"a": 1}', "a space"),
    ('{"a":1.0}', "1.0"), ('{"a":1e2}', "an exponent"), ('{"a":-0}', "minus nought"), ('{"a":NaN}', "not a number"),
    ('"\\u0041"', "an escape that is not needed"), ('"\\/"', "an escape that is not needed"),
    ('"\\u001F"', "an escape in capitals"), ('"\\ud800"', "half a surrogate pair"), ('{"a":1}\n', "a line end"),
    ("[01]", "a leading nought"), ("123456789012345678901", "beyond 2^53 - 1"), ("[" * 100000, "too deep"),
    ('{"\\ud83d\\ude00":1,"\\ufb33":2}', "escapes for what needs none"), ('{"\ufb33":1,"\U0001f600":2}', "sorted by code points"),
)  # fmt: skip


def _leaves(log: Log) -> dict[str, Any]:
    valid = []
    for one in (log.records[0], log.records[3], log.records[22]):
        values, salts = disclosed(one)
        leaf = canonical.leaf(one)
        valid.append({"root_salt": one["salt"].hex(), "leaf": leaf.decode(), "leaf_hash": merkle.leaf_hash(leaf).hex(),
                      "salts": salts, "values": values})  # fmt: skip
    good: dict[str, Any] = json.loads(valid[0]["leaf"])

    def spoiled(reason: str, text: str | None = None, /, **changes: Any) -> dict[str, str]:
        told = {name: value for name, value in (good | changes).items() if value is not None}
        return {"reason": reason, "leaf": canonical.encode(told).decode() if text is None else text}

    invalid = [
        spoiled("an unknown version", v=2), spoiled("no version", v=None), spoiled("a version that is no number", v="1"),
        spoiled("v is true", v=True), spoiled("an unknown member", other="x"), spoiled("no id", id=None),
        spoiled("an id in capitals", id=good["id"].upper()), spoiled("a time without Z", created_at=good["created_at"][:-1]),
        spoiled("a time in milliseconds", created_at="2026-11-23T23:57:52.014Z"), spoiled("an exit code as text", exit_code="0"),
        spoiled("a transition without a version", version=None), spoiled("a transition of version 0", version=0),
        spoiled("a commitment of no record", commitments=good["commitments"] | {"secret": good["commitments"]["actor"]}),
        spoiled("a commitment of 31 bytes", commitments={"actor": base64.b64encode(bytes(31)).decode()}),
        spoiled("a commitment that is no base64", commitments={"actor": "x" * 44}), spoiled("no object", "[]"),
        spoiled("more than 8 KiB", action="x" * 9000), spoiled("a space", valid[0]["leaf"].replace('":', '": ', 1)),
        spoiled("a name twice", '{"action":"x",' + canonical.encode(good | {"action": "x"}).decode()[1:]), spoiled("nothing", ""),
    ]  # fmt: skip
    return {"valid": valid, "invalid": invalid}


def _checkpoints(log: Log) -> list[dict[str, Any]]:
    """Notes, with the witnesses whose signatures are wanted, and whether each verifies."""
    note = log.checkpoint(7)
    both = log.checkpoint(7, witnesses=WITNESSES)
    text, _, signature = note.rpartition("\n\n")
    root = text.split("\n")[2]
    names = [witness.verifier.vkey() for witness in WITNESSES]
    stranger = Witness("stranger.example", private_key("stranger"))
    crowd = note
    for i in range(15):
        crowd = Witness(f"stranger.example/{i}", private_key(f"stranger {i}")).cosign(crowd, 1_795_478_400)
    wrong = Witness(WITNESSES[0].name, WITNESSES[1].private)
    forged = WITNESSES[0].cosign(note, 1_795_478_400)
    moved = base64.b64decode(forged.rstrip("\n").rpartition(" ")[2])
    moved = moved[:11] + bytes([moved[11] ^ 1]) + moved[12:]
    forged = note + f"{DASH} {WITNESSES[0].name} {base64.b64encode(moved).decode()}\n"

    def case(name: str, text: str, valid: bool, witnesses: list[str] | None = None, quorum: int = 0) -> dict[str, Any]:
        return {"name": name, "note": text, "valid": valid, "witnesses": witnesses or [], "quorum": quorum}

    return [
        case("plain", note, True),
        case("an empty log", SIGNER.sign(0, merkle.EMPTY_ROOT), True),
        case("an extension line", sign_text(f"{text}\nextension\n"), True),
        case(
            "a log before it",
            sign_text(f"{text}\nprevious old.example 5 {root}\nabandoned old.example 9 {root}\n"),
            True,
        ),
        case(
            "extension lines that are malformed",
            sign_text(f"{text}\nprevious old.example 05 {root}\nprevious x\n"),
            True,
        ),
        case("cosigned by two, both wanted", both, True, names, 2),
        case("cosigned by two, nobody asked", both, True),
        case("cosigned by one, one of two wanted", WITNESSES[0].cosign(note, 1_795_478_400), True, names, 1),
        case("cosigned by a stranger besides", stranger.cosign(note, 1), True),
        case("sixteen signatures", crowd, True),
        case(
            "another key's signature of the same name besides",
            note + OTHER.sign(7, bytes(32)).rpartition("\n\n")[2],
            True,
        ),
        case("cosigned by one, two wanted", WITNESSES[0].cosign(note, 1_795_478_400), False, names, 2),
        case("a cosignature by another key under the witness's name", wrong.cosign(note, 1), False, names[:1], 1),
        case("a cosignature of another time", forged, False, names[:1], 0),
        case("signed by another key of that name", log.checkpoint(7, OTHER), False),
        case(
            "signed by a key of another name", Signer("other.example", LOG_KEY).sign(7, base64.b64decode(root)), False
        ),
        case("of another origin", sign_text(f"other.example\n7\n{root}\n"), False),
        case("a size with a leading zero", sign_text(f"{ORIGIN}\n07\n{root}\n"), False),
        case("a size of no digits", sign_text(f"{ORIGIN}\n-7\n{root}\n"), False),
        case("a root of 31 bytes", sign_text(f"{ORIGIN}\n7\n{base64.b64encode(bytes(31)).decode()}\n"), False),
        case("an empty line in the text", sign_text(f"{ORIGIN}\n7\n{root}\n\nextension\n"), False),
        case("two lines", sign_text(f"{ORIGIN}\n7\n"), False),
        case("an empty log of another root", SIGNER.sign(0, bytes(32)), False),
        case("another size under the signature", note.replace("\n7\n", "\n8\n", 1), False),
        case(
            "a good signature, then a bad one of the same key",
            note + SIGNER.sign(6, bytes(32)).rpartition("\n\n")[2],
            False,
        ),
        case("no signature", f"{text}\n\n", False),
        case("a hyphen for the dash", note.replace(DASH, "-"), False),
        case("the last newline is missing", note[:-1], False),
        case("carriage returns", note.replace("\n", "\r\n"), False),
        case("a tab", sign_text(f"{text}\n\tx\n"), False),
        case(
            "base64 in another spelling",
            f"{text}\n\n{signature.rstrip()[:-2]}{_other_tail(signature.rstrip()[-2:])}\n",
            False,
        ),
        case("nothing", "", False),
    ]


def _other_tail(tail: str) -> str:
    """The end of a base64 string spelled with bits that decoding drops: 68 bytes end in one pad character."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return alphabet[alphabet.index(tail[0]) ^ 1] + tail[1]


def vectors() -> dict[str, str]:
    """All files of this folder, by name."""
    log = Log.of(records(300))
    published = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in RFC_6962_LEAVES]
    narrowed: list[dict[str, Any]] = [
        {"value": value, "canonical": canonical.encode(value).decode()} for value in CANONICAL
    ]
    refused = [{"text": text, "reason": reason} for text, reason in NOT_CANONICAL if len(text) < 1000]
    made: dict[str, Any] = {
        "keys.json": {
            "note": "for tests only: everybody knows the secrets",
            "log": {"vkey": SIGNER.verifier.vkey(), "secret": LOG_KEY.private_bytes_raw().hex()},
            "another_log": {"vkey": OTHER.verifier.vkey()},
            "witnesses": [
                {"vkey": one.verifier.vkey(), "secret": one.private.private_bytes_raw().hex()} for one in WITNESSES
            ],
        },
        "ed25519.json": _ed25519(),
        "merkle.json": {"leaves": RFC_6962_LEAVES} | _merkle(published),
        "canonical.json": {"valid": narrowed, "invalid": refused},
        "leaves.json": _leaves(log),
        "checkpoints.json": _checkpoints(log),
        "bundle.json": _as_text(bundle_files(log, list(range(100, 120)), old=90, witnesses=WITNESSES)),
        "bundle-filtered.json": _as_text(
            bundle_files(
                log, [3, 7, 11, 99, 256, 299], filters={"result": ["timed_out"]}, withheld=["stdout", "address"]
            )
        ),
        "log.json": {name: base64.b64encode(data).decode() for name, data in Log.of(records(260)).directory().items()},
    }
    texts = {name: json.dumps(value, indent=1, ensure_ascii=True) + "\n" for name, value in made.items()}
    return texts | {
        "checkpoint-90.txt": log.checkpoint(90),
        "checkpoint-300.txt": log.checkpoint(witnesses=WITNESSES),
        "consistency-90-300.txt": consistency_file(90, log.reader().consistency(90)),
        "event-103.tlog-proof": log.proof(103, note=log.checkpoint(witnesses=WITNESSES)),
    }


def _as_text(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: data.decode() for name, data in files.items()}


def main() -> None:
    """Writes them."""
    for name, text in vectors().items():
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
