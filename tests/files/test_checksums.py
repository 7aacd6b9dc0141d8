"""Checksums as multihashes in hexadecimal."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_gitlab.files.checksums import Checksum, UnknownChecksumError

CONTENT = b"Lake Constance, 536 km2"

# What precedes the digest, and the function, from the multicodec table.
PREFIXES = {
    "1114": "sha1",
    "1220": "sha256",
    "1340": "sha512",
    "1440": "sha3_512",
    "1530": "sha3_384",
    "1620": "sha3_256",
    "171c": "sha3_224",
    "2030": "sha384",
    "d50110": "md5",
    "93201c": "sha224",
    "94201c": "sha512_224",
    "952020": "sha512_256",
    "d32014": "ripemd160",
    "cda60120": "sm3",
    "c0e40240": "blake2b",
    "e0e40220": "blake2s",
}


def digest_of(checksum: Checksum, content: bytes) -> bytes:
    hasher = checksum.hasher()
    hasher.update(content)
    return checksum.digest_of(hasher)


@pytest.mark.parametrize(("prefix", "function"), PREFIXES.items())
def test_every_hash_function_of_python_is_supported(prefix: str, function: str) -> None:
    try:
        digest = hashlib.new(function, CONTENT, usedforsecurity=False).digest()
    except ValueError:
        pytest.skip(f"this Python's OpenSSL lacks {function}")
    checksum = Checksum.parse(prefix + digest.hex())
    assert digest_of(checksum, CONTENT) == digest == checksum.digest
    assert digest_of(checksum, CONTENT + b".") != digest
    assert str(checksum) == prefix + digest.hex()


@pytest.mark.parametrize(("prefix", "function", "size"), [("1820", "shake_128", 32)])
def test_digests_of_any_length_have_the_length_of_the_multicodec_table(
    prefix: str, function: str, size: int
) -> None:
    digest = hashlib.new(function, CONTENT).digest(size)  # type: ignore[call-arg]
    checksum = Checksum.parse(prefix + digest.hex())
    assert digest_of(checksum, CONTENT) == digest


@pytest.mark.parametrize("length", [1, 16, 20, 32, 64])
def test_blake2b_has_the_length_that_its_code_states(length: int) -> None:
    digest = hashlib.blake2b(CONTENT, digest_size=length).digest()
    code = 0xB200 + length
    prefix = bytes([code & 0x7F | 0x80, code >> 7 & 0x7F | 0x80, code >> 14, length]).hex()
    checksum = Checksum.parse(prefix + digest.hex())
    assert digest_of(checksum, CONTENT) == digest
    assert str(checksum) == prefix + digest.hex()


def test_the_prefixes_of_blake2b_256_are_those_of_the_file_extension() -> None:
    digest = hashlib.blake2b(CONTENT, digest_size=32).digest()
    assert digest_of(Checksum.parse("a0e40220" + digest.hex()), CONTENT) == digest


def test_a_truncated_digest_is_compared_with_a_truncated_one() -> None:
    full = hashlib.sha256(CONTENT).digest()
    checksum = Checksum.parse("1214" + full[:20].hex())
    assert checksum.algorithm == "sha256"
    assert digest_of(checksum, CONTENT) == full[:20]
    assert str(checksum) == "1214" + full[:20].hex()


def test_letter_case_does_not_matter() -> None:
    text = "1220" + hashlib.sha256(CONTENT).hexdigest()
    assert Checksum.parse(text.upper()) == Checksum.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (hashlib.md5(CONTENT).hexdigest(), "A bare digest does not name its hash function"),
        (hashlib.sha256(CONTENT).hexdigest(), "bare digest|number is incomplete"),
        ("1e20" + "00" * 32, "does not have the hash function 0x1e"),
        ("5620" + "00" * 32, "does not have the hash function 0x56"),
        ("0003616263", "does not have the hash function 0x0"),
        ("1221" + "00" * 33, "longer than those of sha256"),
        ("1220" + "00" * 31, "its length is not the one that it states"),
        ("1200", "its length is not the one that it states"),
        ("12", "its first number is incomplete"),
        ("80" * 12, "its first number is incomplete"),
        ("ffffffffffffffffff7f", "bare digest|is incomplete"),
        ("", "not a hexadecimal multihash"),
        ("122", "not a hexadecimal multihash"),
        ("12 20", "not a hexadecimal multihash"),
        ("sha256:abcd", "not a hexadecimal multihash"),
        ("\uff11\uff12\uff12\uff10", "not a hexadecimal multihash"),
        ("1220" + "00" * 32 + "\n", "not a hexadecimal multihash"),
        (None, "not a hexadecimal multihash"),
        (1220, "not a hexadecimal multihash"),
        (b"1220", "not a hexadecimal multihash"),
        (["1220"], "not a hexadecimal multihash"),
    ],
)
def test_a_checksum_that_cannot_be_verified_is_an_error_with_the_reason(
    text: object, why: str
) -> None:
    with pytest.raises(UnknownChecksumError, match=why):
        Checksum.parse(text)


def test_a_hash_function_that_this_python_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def new(name: str, *_: object, **__: object) -> None:
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr(hashlib, "new", new)
    with pytest.raises(UnknownChecksumError, match="lacks the hash function sm3"):
        Checksum.parse("cda60120" + "00" * 32)


def test_only_a_valid_sha256_is_accepted() -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert str(Checksum.of_sha256(digest)) == "1220" + digest
    for wrong in ("", digest[:-1], digest + "00", "x" * 64, digest + "\n"):
        with pytest.raises(UnknownChecksumError, match="it is not a"):
            Checksum.of_sha256(wrong)


@given(st.binary(), st.sampled_from(sorted(PREFIXES)), st.integers(1, 64))
def test_a_checksum_survives_being_written_and_read(
    content: bytes, prefix: str, length: int
) -> None:
    try:
        digest = hashlib.new(PREFIXES[prefix], content, usedforsecurity=False).digest()[:length]
    except ValueError:
        return
    written = f"{prefix[:-2]}{len(digest):02x}{digest.hex()}"
    checksum = Checksum.parse(written)
    assert str(checksum) == written
    assert digest_of(checksum, content) == digest
    assert Checksum.parse(str(checksum)) == checksum


@given(st.one_of(st.text(), st.binary().map(bytes.hex), st.none(), st.integers(), st.floats()))
def test_any_text_is_a_checksum_or_an_error_with_the_reason(text: object) -> None:
    try:
        checksum = Checksum.parse(text)
    except UnknownChecksumError as error:
        why = str(error)
    else:
        why = checksum.algorithm
        assert checksum.digest
        assert checksum.hasher() is not None
    assert why
