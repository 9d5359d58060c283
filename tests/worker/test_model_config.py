"""Which models are wanted: TensorFlow Serving's text form, beside what its own messages make of it; folders of models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fairway.worker.errors import ConfigurationError
from fairway.worker.model_config import ConfigFile, Directory, Fixed, ModelConfig, ModelEntry, config_of, parse_config
from fairway.worker.versions import Policy

SETTLE = 1.0
WHOLE = """
# as its page on configuration shows them
model_config_list {
  config {
    name: 'my_first_model'
    base_path: '/tmp/my_first_model/'
    model_platform: 'tensorflow'
  }
  config: <
    name: "my_" "second_model", base_path: "second";
    model_version_policy { specific { versions: 42 versions: [43, 44] } }
    version_labels { key: 'stable' value: 42 }
    version_labels { key: 'canary' value: 43 }
  >
  config { name: "third" base_path: "keras:MobileNetV2" model_version_policy { latest { num_versions: 3 } } }
  config { name: "fourth" base_path: "/m" model_platform: "onnx" model_version_policy { all {} } }
  config { name: "fifth" base_path: "/m" model_version_policy { latest {} } }
}
"""


def test_the_text_form() -> None:
    config = parse_config(WHOLE, Path("/etc/models"))
    assert config.entries == (
        ModelEntry("my_first_model", "/tmp/my_first_model"),
        ModelEntry(
            "my_second_model",
            "/etc/models/second",
            Policy("specific", versions=frozenset((42, 43, 44))),
            {"stable": 42, "canary": 43},
        ),
        ModelEntry("third", "keras:MobileNetV2", Policy("latest", 3)),
        ModelEntry("fourth", "/m", Policy("all"), runtime="onnx"),
        ModelEntry("fifth", "/m", Policy("latest", 1)),
    )


def test_it_is_read_as_tensorflow_serving_reads_it() -> None:
    theirs = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    from google.protobuf import text_format

    parsed = text_format.Parse(WHOLE, theirs.ModelServerConfig())
    assert config_of(parsed, Path("/etc/models")) == parse_config(WHOLE, Path("/etc/models"))


def one(**fields: str) -> str:
    fields = {"name": '"m"', "base_path": '"/m"'} | fields
    return f"model_config_list {{ config {{ {' '.join(f'{name}: {value}' for name, value in fields.items())} }} }}"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "expected a model_config_list"),
        ("model_config_list {", '1:19 : Expected "}"'),
        ("models { }", 'has no field named "models"'),
        (one(base_path="7"), "Expected string"),
        (one(base_path='""'), "a model needs a name and a base_path; got 'm' and ''"),
        (one(name='""'), "got '' and '/m'"),
        (one(model_platform='"caffe"'), "m: model_platform 'caffe': expected one of tensorflow, "),
        (one(version_labels='{ key: "a-b" value: 1 }'), "version label 'a-b'"),
        ('model_config_list { config { name: "m" base_path: "a" } config { name: "m" base_path: "b" } }', "twice"),
        (one() + one(name='"n"'), "should not be specified|another|multiple"),
    ],
)
def test_what_is_wrong_is_named(text: str, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=wrong):
        parse_config(text, Path("/"))


def test_a_fixed_set_is_what_was_said() -> None:
    config = ModelConfig((ModelEntry("m", "/m"),))
    assert Fixed(config).read(0.0) is config


# -- a file ---------------------------------------------------------------------------------------------------------


def names(config: ModelConfig) -> list[str]:
    return [entry.name for entry in config.entries]


def test_a_file_is_read_again_when_it_has_changed_and_stood_still(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(one())
    file = ConfigFile(path, SETTLE)
    first = file.read(10.0)
    assert names(first) == ["m"]
    assert file.read(100.0) is first, "nothing was read again"
    assert not file.unsettled
    path.write_text(one(name='"other"'))
    assert names(file.read(101.0)) == ["m"]
    assert names(file.read(101.9)) == ["m"]
    assert file.unsettled
    assert names(file.read(102.1)) == ["other"]
    assert not file.unsettled


def test_a_file_that_is_emptied_before_it_is_written_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(one())
    file = ConfigFile(path, SETTLE)
    file.read(10.0)
    path.write_text("")
    assert names(file.read(11.0)) == ["m"]
    path.write_text(one(name='"other"'))
    assert names(file.read(11.5)) == ["m"]
    assert names(file.read(12.6)) == ["other"]


def test_a_bad_edit_is_named_until_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(one())
    file = ConfigFile(path, SETTLE)
    file.read(10.0)
    path.write_text("model_config_list { config { nam: 'm' } }")
    file.read(11.0)
    for now in (12.1, 13.1):
        with pytest.raises(ConfigurationError, match=r"models\.config: .*nam"):
            file.read(now)
        assert not file.unsettled
    path.write_text(one(name='"other"'))
    with pytest.raises(ConfigurationError, match="nam"):
        file.read(14.0)
    assert names(file.read(15.1)) == ["other"]


def test_a_file_that_goes_is_named_and_one_that_comes_back_is_read(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(one())
    file = ConfigFile(path, SETTLE)
    first = file.read(10.0)
    path.rename(tmp_path / "away")
    with pytest.raises(ConfigurationError, match="No such file"):
        file.read(11.0)
    (tmp_path / "away").rename(path)
    assert file.read(12.0) is first


def test_a_file_that_was_never_good(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        ConfigFile(tmp_path / "nowhere", SETTLE).read(0.0)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="utf-8"):
        ConfigFile(tmp_path / "binary", SETTLE).read(0.0)


# -- a folder of models ---------------------------------------------------------------------------------------------


def directory(path: Path) -> Directory:
    return Directory(path, Policy("all"), {"stable": 1})


def test_every_folder_with_numbered_versions_is_a_model(tmp_path: Path) -> None:
    for name in ("b/1", "a/1", "a/2", "empty", "letters/one", ".hidden/1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").write_text("")
    config = directory(tmp_path).read(0.0)
    assert config.entries == tuple(
        ModelEntry(name, str(tmp_path / name), Policy("all"), {"stable": 1}) for name in ("a", "b")
    )


def test_newcomers_stand_behind_those_who_were_there(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    wanted = directory(tmp_path)
    assert names(wanted.read(0.0)) == ["m"]
    for name in ("z", "a"):
        (tmp_path / name / "1").mkdir(parents=True)
    assert names(wanted.read(1.0)) == ["m", "a", "z"]
    shutil.rmtree(tmp_path / "m")
    assert names(wanted.read(2.0)) == ["a", "z"]


def test_a_folder_that_is_empty_all_at_once_or_away_changes_nothing(tmp_path: Path) -> None:
    wanted = directory(tmp_path / "models")
    with pytest.raises(ConfigurationError, match="No such file"):
        wanted.read(0.0)
    (tmp_path / "models").mkdir()
    assert names(wanted.read(1.0)) == []
    (tmp_path / "models" / "m" / "1").mkdir(parents=True)
    wanted.read(2.0)
    shutil.rmtree(tmp_path / "models" / "m")
    with pytest.raises(ConfigurationError, match="empty all at once"):
        wanted.read(3.0)
