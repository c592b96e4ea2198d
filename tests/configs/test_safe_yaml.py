"""Small hostile YAML files that stand for huge values are refused."""

import time
from itertools import pairwise

import pytest

from configs.loading import ConfigError, load_config, parse_config
from configs.safe_yaml import MAX_VALUES, check_tree, parse_yaml

LETTERS = "abcdefghi"


def laughs(line):
    """Write a "billion laughs" file: each line repeats the one before it nine times, by `line`."""
    first = "a: &a {k: 1}\n"
    return first + "".join(
        f"{name}: &{name} {line.format(', '.join(9 * [f'*{before}']))}\n"
        for before, name in pairwise(LETTERS)
    )


HOSTILE = {
    "a billion laughs": (laughs("[{}]"), "more than 4096 values, those that aliases repeat"),
    "merged": (laughs("{{<<: [{}]}}"), "more than 4096 values, those that aliases repeat"),
    "in itself": ("a: &a [*a]", "*a refers to itself"),
    "a mapping in itself": ("a: &a {b: *a}", "*a refers to itself"),
    "deep lists": ("a: " + "[" * 5000, "more than 20 levels"),
    "deep mappings": ("{a: " * 500, "more than 20 levels"),
    "deep by indentation": ("\n".join(" " * n + "a:" for n in range(99)), "more than 20 levels"),
    "many keys": ("\n".join(f"k{n}: 1" for n in range(5000)), "more than 4096 values"),
    "a long number": ("seed: " + "9" * 3000, "a number of more than 64 digits"),
    "a long number in base 60": ("seed: " + ":".join(["59"] * 900), "more than 64 digits"),
    "a longer one": ("seed: 0x" + "f" * 9999, "a value of more than 4096 characters"),
    "long text": (f"data: {{root: {'a' * 5000}}}", "a value of more than 4096 characters"),
    "a long file": ("#" * 300_000, "more than 262,144 bytes of YAML"),
    "an empty number": ("seed: !!int ''", "not YAML: "),
    "a number that is none": ("seed: !!float abc", "not YAML: "),
    "a truth that is none": ("seed: !!bool abc", "not YAML: "),
    "a time that is none": ("seed: !!timestamp abc", "not YAML: "),
    "code": ("seed: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "two documents": ("seed: 1\n---\nseed: 2", "expected a single document"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_yaml(tmp_path, kind):
    text, problem = HOSTILE[kind]
    path = tmp_path / "a.yaml"
    path.write_text(text)
    began = time.perf_counter()
    with pytest.raises(ConfigError) as raised:
        load_config(str(path))
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert problem in message
    assert "\n" not in message
    assert len(message) < 500
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("kind", ["in itself", "deep lists", "code", "an empty number"])
def test_hostile_overrides(kind):
    text, problem = HOSTILE[kind]
    value = text.partition(": ")[2]
    with pytest.raises(ConfigError, match=r"^override .seed=") as raised:
        load_config("demo", [f"seed={value}"])
    assert problem in str(raised.value)
    with pytest.raises(ConfigError, match=r"must be key\.sub=value"):
        load_config("demo", [".".join("a" * 5000) + "=1"])


def test_a_number_beyond_all_others():
    with pytest.raises(ConfigError, match=r"found Infinity; must be a finite number"):
        load_config("demo", ["train.learning_rate=1e999999999"])


def test_honest_aliases_and_merges_are_read():
    text = "a: &a {x: 1e-4, y: [1, 2]}\nb: {<<: *a, x: 2}\nc: *a"
    assert parse_yaml(text) == {
        "a": {"x": 1e-4, "y": [1, 2]},
        "b": {"x": 2, "y": [1, 2]},
        "c": {"x": 1e-4, "y": [1, 2]},
    }


def test_the_config_in_a_checkpoint_has_the_same_limits():
    """Objects in a checkpoint may be shared or contain themselves, as aliases in YAML may."""
    shared = ["x"] * 9
    for _ in range(20):
        shared = [shared] * 9
    itself: list = []
    itself.append(itself)
    for value in (shared, itself, ["x"] * MAX_VALUES):
        with pytest.raises(ValueError, match="more than 4096 values, or 20 levels"):
            check_tree({"data": value})
    with pytest.raises(ValueError, match="a number of more than 64 digits"):
        check_tree({"seed": 10**5000})
    with pytest.raises(ValueError, match="a value of type bytes"):
        check_tree({"seed": b"1"})
    for text in ("a\0b", "\ud800"):
        for tree in ({"run": [text]}, {text: 1}):
            with pytest.raises(ValueError, match="text with a NUL character or half of a surro"):
                check_tree(tree)
    with pytest.raises(ConfigError, match=r"^c\.pt: not a config of this program: it has"):
        parse_config({"data": shared}, "c.pt")
    check_tree({"a": [1, 2.5, None, True, "b", {"c": [[1]]}]})


@pytest.mark.parametrize("text", ['"a\\0b"', r'"\uD800"'])
def test_escaped_text_that_cannot_be_written(text):
    with pytest.raises(ValueError, match="text with a NUL character or half of a surrogate pair"):
        parse_yaml(f"run: {text}")
