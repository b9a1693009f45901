"""Lists of keys on a command line: every form gives the same keys."""

from pathlib import Path

import pytest

from dr_core.errors import InputError
from pipelines.cli.key_lists import keys_of


def test_every_form_gives_the_keys_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes("\ufeff318\r\n\r\nHeat, the film\r\n".encode())
    (tmp_path / "list.json").write_text('["318",\n "Heat, the film"]\n')
    (tmp_path / "empty").write_text("")
    for texts, expected in (
        (["318, 1196 ,,260"], ["318", "1196", "260"]),
        (['["318", "Heat, the film", 1196, 260.0]'], ["318", "Heat, the film", "1196", "260"]),
        (["318", '["a,b"]', "318"], ["318", "a,b", "318"]),
        ([f"@{tmp_path}/lines", "7"], ["318", "Heat, the film", "7"]),
        ([f" @{tmp_path}/list.json"], ["318", "Heat, the film"]),
        ([f"@{tmp_path}/empty"], []),
        (["", " , "], []),
        (None, []),
        (['["@user", "[DVD] Heat"]'], ["@user", "[DVD] Heat"]),
    ):
        assert keys_of("--history", texts) == expected


@pytest.mark.parametrize(
    ("text", "word"),
    [("[DVD] Heat", "is no JSON list"), ('["1", "2"', "is no JSON list"), ("[null]", "None is no key"), ("[[1]]", "is no key"),
     ("@", "cannot be read"), ("@nowhere", "a key that begins with @ goes into a JSON list"), ("@.", "cannot be read")],
)  # fmt: skip
def test_a_list_that_cannot_be_read_is_refused_in_a_line(text: str, word: str) -> None:
    with pytest.raises(InputError, match=word) as refused:
        keys_of("--block", [text])
    assert str(refused.value).startswith("--block")
    assert "\n" not in str(refused.value)
