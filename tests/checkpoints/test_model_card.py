"""The model card that export writes: what it says, what it leaves to its author, and when."""

import os
import re

import pytest
import yaml

from checkpoints import export
from checkpoints.checkpoint import load
from checkpoints.export import slim
from checkpoints.model_card import model_card
from common.cli import run_entry_point
from configs.loading import dump_config, load_config, override_config, parse_config
from tests.helpers.published_files import FOMM, write
from tests.helpers.runs import contents, error_line, step_file


def run_export(*arguments: object) -> int:
    return run_entry_point(export.main, export.build_parser(), [*map(str, arguments)])


def sections(card):
    """The head as YAML, and the text of each section by title."""
    _, head, body = card.split("---\n", 2)
    parts = re.split(r"^## (\w+)$", body, flags=re.MULTILINE)
    return yaml.safe_load(head), dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture
def small(tiny_run):
    return slim(load(step_file(tiny_run, 8)))


def test_content(tiny_run, tmp_path, small, capsys):
    path = tmp_path / "model.pt"
    assert run_export(step_file(tiny_run, 8), "--output", path) == 0
    card = (tmp_path / "model.md").read_text()
    assert (
        f"{tmp_path / 'model.md'}: the model card; fill in what it marks" in capsys.readouterr().out
    )
    head, found = sections(card)
    assert head == {"license": "unknown", "tags": ["image-animation"]}
    assert list(found) == ["Use", "Model", "Data", "Metrics", "Limits", "Licence", "Config"]
    assert "animate.py --checkpoint model.pt " in found["Use"]
    networks = small.evaluation_networks.values()
    count = sum(tensor.numel() for state in networks for tensor in state.values())
    assert f"| size | {count:,} numbers in" in found["Model"]
    assert "| branches | motion (fomm), masks, background |" in found["Model"]
    assert "| pictures | 32 x 32 pixels |" in found["Model"]
    assert "| trained | step 8; average weights |" in found["Model"]
    assert "no person is in them" in found["Data"]
    assert f"| `l1` | {small.metrics['l1']:.4f} |" in found["Metrics"]
    assert "**To be filled in:** the licence of these weights" in found["Licence"]
    (text,) = re.findall(r"```yaml\n(.*)```", found["Config"], re.DOTALL)
    (tmp_path / "config.yaml").write_text(text)
    assert load_config(str(tmp_path / "config.yaml")) == small.config


def test_a_stated_licence(tiny_run, tmp_path):
    """It is also in the file and in the description, and stays when that is exported again."""
    options = ("--licence", "CC-BY-NC-4.0")
    assert run_export(step_file(tiny_run, 8), "--output", tmp_path / "a.pt", *options) == 0
    assert run_export(tmp_path / "a.pt", "--output", tmp_path / "b.pt") == 0
    for name in "ab":
        head, found = sections((tmp_path / f"{name}.md").read_text())
        assert head["license"] == "CC-BY-NC-4.0"
        assert "Of the weights: CC-BY-NC-4.0." in found["Licence"]
        assert '"licence": "CC-BY-NC-4.0"' in (tmp_path / f"{name}.json").read_text()
        assert contents(tmp_path / f"{name}.pt")["provenance"]["licence"] == "CC-BY-NC-4.0"


def test_a_card_that_is_there_is_kept(tiny_run, tmp_path, capsys):
    """Its author may have filled it in."""
    (tmp_path / "model.md").write_text("mine")
    assert run_export(step_file(tiny_run, 8), "--output", tmp_path / "model.pt") == 0
    assert (tmp_path / "model.md").read_text() == "mine"
    assert f"{tmp_path / 'model.md'}: kept as it is; remove it" in capsys.readouterr().out


def test_the_name_of_the_card_is_no_output(tiny_run, tmp_path, capsys):
    assert run_export(step_file(tiny_run, 8), "--output", tmp_path / "model.md") == 2
    assert "give model.pt" in error_line(capsys, "python -m checkpoints.export")
    assert list(tmp_path.iterdir()) == []


def test_clips_of_a_folder(small, tmp_path):
    """Only the last folder is named outside of the config."""
    config = override_config(small.config, ["data.kind=clips", "data.root=/home/ann/heads"])
    _, found = sections(model_card(small._replace(config=config), tmp_path / "m.pt"))
    assert "a folder `heads`" in found["Data"]
    assert "/home/ann" not in found["Data"]
    assert "**To be filled in:** what these clips are" in found["Data"]


def test_weights_without_metrics(small, tmp_path):
    _, found = sections(model_card(small._replace(metrics={}), tmp_path / "m.pt"))
    assert "None are stored with these weights" in found["Metrics"]
    _, found = sections(model_card(small._replace(metrics={"l1": float("nan")}), tmp_path / "m.pt"))
    assert "None are stored with these weights" in found["Metrics"]


def test_a_published_file(tmp_path):
    config = FOMM.config("data.kind=clips", "data.root=data/vox")
    (tmp_path / "config.yaml").write_text(dump_config(config))
    path = write(tmp_path / "vox-cpk.pth.tar", FOMM.content(config))
    options = ("--config", tmp_path / "config.yaml", "--output", tmp_path / "vox.pt")
    assert run_export(path, *options) == 0
    _, found = sections((tmp_path / "vox.md").read_text())
    assert "Those of the published file of FOMM" in found["Data"]
    assert "the licence of its authors holds" in found["Licence"]
    assert "| trained | FOMM, epoch 99; raw weights |" in found["Model"]


def test_texts_of_others_are_no_markdown(small, tmp_path):
    """No picture is fetched, and no text hides where it leads, when the card is looked at."""
    nasty = "![t](http://evil/x.png) *a* &lt; <b>"
    shown = r"!\[t\](http://evil/x.png) \*a\* &amp;lt; &lt;b&gt;"
    for key in ("licence", "published", "exported_from"):
        provenance = small.provenance | {key: nasty}
        _, body = model_card(small._replace(provenance=provenance), tmp_path / "m.pt").split(
            "# ", 1
        )
        assert shown in body
        assert nasty not in body
    card = model_card(small, tmp_path / f"{nasty.replace('/', '')}.pt")
    assert "\n# " + shown.replace("/", "") in card
    metrics = {"a`|\\|*b*": 1.0}
    assert r"| `a'/\/*b*` | 1.0000 |" in model_card(
        small._replace(metrics=metrics), tmp_path / "m.pt"
    )


def test_names_that_are_not_utf8(small, tmp_path):
    card = model_card(small, tmp_path / os.fsdecode(b"\xff.pt"))
    assert r"# \\udcff" in card
    assert card.encode().decode() == card


def test_texts_of_others_cannot_change_the_card(small, tmp_path):
    """Those of an untrusted checkpoint, which its finder exports once more."""
    nasty = "x`</td><script>|\n## Licence\n\nfree"
    tree = small.config.model_dump()
    tree["run"]["output_dir"] = "runs/```\n## Licence\n\nfree"
    tree["data"] |= {"kind": "clips", "root": nasty}
    config = parse_config(tree, "tree")
    changed = small._replace(
        config=config, provenance=small.provenance | {"licence": nasty, "exported_from": nasty}
    )
    head, found = sections(model_card(changed, tmp_path / "m.pt"))
    assert list(found) == ["Use", "Model", "Data", "Metrics", "Limits", "Licence", "Config"]
    assert head["license"].startswith("x`</td>")
    for title in ("Model", "Data", "Licence"):
        assert "<script" not in found[title]
