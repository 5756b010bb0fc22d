"""What a chat template takes, told before an engine refuses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noria.backends.chat_roles import Roles, roles_of, template_of
from noria.backends.llamacpp import model_path
from noria.errors import Invalid
from noria.settings import EngineSettings

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
STRICT = """{{ bos_token }}
{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
<start_of_turn>{{ message['role'] }}
{{ message['content'] | trim }}<end_of_turn>
{% endfor %}"""
"""As Gemma 2's: no system role, and users and assistants in turn."""
SILENT = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
TOOLS = """{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}
{% for m in messages %}{{ m.role }}: {{ m.content }}
{% for call in m.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments | tojson }}){% endfor %}
{% endfor %}"""


@pytest.mark.parametrize(
    ("template", "roles"),
    [
        (CHATML, Roles(system=True, tool=True, tools=False, repeats=True, continues=True)),
        (STRICT, Roles(system=False, tool=False, tools=False, repeats=False, continues=False)),
        (SILENT, Roles(system=False, tool=False, tools=False, repeats=True, continues=True)),
        (TOOLS, Roles(system=True, tool=True, tools=True, repeats=True, continues=True)),
    ],
    ids=["chatml", "strict", "silent", "tools"],
)
def test_roles_are_those_whose_text_reaches_the_prompt(template: str, roles: Roles) -> None:
    assert roles_of(template, {"bos_token": "<bos>"}) == roles


def test_what_is_no_template_is_refused() -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        roles_of("{% for m in messages %}", {})
    with pytest.raises(Invalid, match="user's message"):
        roles_of("Hello!", {})


def test_a_template_cannot_reach_beyond_its_sandbox() -> None:
    with pytest.raises(Invalid, match="user's message"):
        roles_of("{{ messages.__class__.__mro__[1].__subclasses__() }}{{ messages[0].content }}", {})


def test_a_folder_has_its_template_in_a_file_or_in_its_configuration(tmp_path: Path) -> None:
    config = {"chat_template": [{"name": "default", "template": CHATML}], "bos_token": {"content": "<s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert template_of(tmp_path) == (CHATML, {"bos_token": "<s>"})
    (tmp_path / "chat_template.jinja").write_text(SILENT)
    assert template_of(tmp_path)[0] == SILENT
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(Invalid, match="no chat template"):
        template_of(tmp_path)


def test_the_packaged_model_takes_a_system_message_and_no_tools() -> None:
    roles = roles_of(*template_of(model_path(EngineSettings(kind="llamacpp", model="smollm2-135m-instruct"))))
    assert roles.system
    assert not roles.tools
