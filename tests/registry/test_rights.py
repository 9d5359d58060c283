"""A token file says who may do what; nothing that goes wrong with it shows a token."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.registry import rights
from fairway.registry.errors import ConfigurationError
from fairway.registry.rights import Rights, Tokens

READER, WORKER, BOSS = "reader-0123456789", "worker-0123456789", "boss-#0123456789"
FILE = f"""
# who may do what
{READER} read
{WORKER}\tread, register:classify  # the classifiers
  {BOSS} admin
"""


def principal(token: str) -> str:
    return "token:" + hashlib.sha256(token.encode()).hexdigest()[:12]


def test_without_a_file_everybody_may_do_everything() -> None:
    found = Tokens().rights("whatever it is")
    assert found == Tokens().rights("") == Rights("anonymous", True, True, ("",))
    assert found.may_register("classify")


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (READER, Rights(principal(READER), may_read=True)),
        (WORKER, Rights(principal(WORKER), may_read=True, prefixes=("classify",))),
        (BOSS, Rights(principal(BOSS), may_read=True, admin=True, prefixes=("",))),
        ("", Rights("anonymous")),
        ("reader-012345678", Rights("unknown")),
        (READER + " ", Rights("unknown")),
        ("anonymous", Rights("unknown")),
        ("\ud800" * 16, Rights("unknown")),
        ("Grüße an alle Leser", Rights("unknown")),
    ],
)
def test_a_token_has_what_its_line_says(token: str, expected: Rights) -> None:
    assert Tokens.parse(FILE).rights(token) == expected


def test_a_prefix_is_of_the_service() -> None:
    worker, boss = Tokens.parse(FILE).rights(WORKER), Tokens.parse(FILE).rights(BOSS)
    assert [worker.may_register(name) for name in ("classify", "classify-flowers", "classif", "detect")] == [
        True,
        True,
        False,
        False,
    ]
    assert boss.may_register("detect")
    everything = Tokens.parse(f"{WORKER} register:").rights(WORKER)
    assert everything.may_register("detect")
    assert not everything.may_read
    assert not Tokens.parse(FILE).rights(READER).may_register("")


def test_the_file_may_give_rights_to_who_shows_no_token() -> None:
    tokens = Tokens.parse("anonymous read\n" + FILE)
    assert tokens.rights("") == Rights("anonymous", may_read=True)
    assert tokens.rights("a token nobody gave") == Rights("unknown")  # wrong is not the same as none


def test_an_empty_file_lets_nobody_in() -> None:
    assert Tokens.parse("# nobody\n").rights("") == Rights("anonymous")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("short-S3CRET read", "16 characters"),
        ("long-enough-S3CRET", "right 1"),
        ("long-enough-S3CRET read, S3CRET", "right 2"),
        ("long-enough-S3CRET read,", "right 2"),
        ("long-enough-S3CRET register", "right 1"),
        ("long-enough-S3CRET register:a*", "right 1"),
        ("long-enough-S3CRET read register:a", "right 1"),
        ("read long-enough-S3CRET", "16 characters"),
        ("länger-als-16-S3CRET read", "ASCII"),
        (READER + " admin", "line 3"),
    ],
)
def test_what_is_wrong_is_said_by_line_and_shows_no_token(line: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^line 6: ") as caught:
        Tokens.parse(FILE + line)
    assert words in str(caught.value)
    assert "S3CRET" not in str(caught.value)
    assert READER not in str(caught.value)


def test_no_repr_shows_a_token() -> None:
    tokens = Tokens.parse(FILE)
    for token in (READER, WORKER, BOSS):
        assert token not in repr(tokens) + repr(tokens.rights(token)) + str(vars(tokens))


def test_every_token_is_compared_however_early_one_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def counted(a: bytes, b: bytes) -> bool:
        compared.append(a)
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(rights, "compare_digest", counted)
    tokens = Tokens.parse(FILE)
    for token in (READER, BOSS, "nobody's token at all"):
        compared.clear()
        tokens.rights(token)
        assert len(compared) == 3


@given(st.text(max_size=200))
def test_any_text_is_a_file_or_an_error(text: str) -> None:
    try:
        tokens = Tokens.parse(text)
    except ConfigurationError:
        return
    assert not tokens.rights("a token that is in no file").may_read


@given(
    st.dictionaries(
        st.from_regex(r"[\x21\x22\x24-\x7e][\x21-\x7e]{15,40}", fullmatch=True),
        st.lists(st.sampled_from(["read", "admin", "register:", "register:a", "register:b-"]), min_size=1),
        max_size=5,
    )
)
def test_what_is_written_is_read(file: dict[str, list[str]]) -> None:
    tokens = Tokens.parse("".join(f"{token} {','.join(words)}\n" for token, words in file.items()))
    for token, words in file.items():
        found = tokens.rights(token)
        assert found.principal == principal(token)
        assert found.admin == ("admin" in words)
        assert found.may_read == bool({"admin", "read"} & set(words))
        assert found.may_register("a1") == bool({"admin", "register:", "register:a"} & set(words))
