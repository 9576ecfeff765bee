"""The README's table of options is the table of options."""

import re
from pathlib import Path

from mover import config

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_every_option_with_its_variable_default_and_help():
    rows = re.findall(r"^\| `([a-z_.]+)` \| `(MOVER_[A-Z_]+)` \| (.*?) \| (.*) \|$", README, re.MULTILINE)
    assert [(key, env, text) for key, env, _, text in rows] == [(o.toml, o.env, o.help) for o in config.OPTIONS]
    for (key, _, default, _), option in zip(rows, config.OPTIONS, strict=True):
        value = option.default({})
        if option.name not in {"state_dir", "workers"}:  # these depend on the machine
            text = option.text(value)
            assert default == (text if text == "-" else f"`{text}`"), key


def test_the_example_files_are_some(tmp_path):
    first, *more = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    file = tmp_path / "mover.toml"
    file.write_text(first)
    assert config.load({}, {}, file).cluster_name == "seekdb"
    for example in more:
        file.write_text(example)
        settings = config.load({}, {}, file)
        assert any(origin.kind == "file" for origin in settings.origins().values())
