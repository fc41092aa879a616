--- Inline completion (LSP 3.18) as grey text at the cursor. Neovim 0.12 has its own; this works with 0.11 as well.
local config = require('inhouse.config')

local M = {}

local METHOD = 'textDocument/inlineCompletion'
local AUTOMATIC = 2
local PAUSE_MS = 150
local space = vim.api.nvim_create_namespace('inhouse-completion')

local shown = nil --- @type { buffer: integer, row: integer, column: integer, text: string }?
local asked = nil --- @type { client: vim.lsp.Client, id: integer }?
local timer = assert(vim.uv.new_timer())

--- Take away what is shown, and end what is asked.
function M.clear()
  timer:stop()
  if shown and vim.api.nvim_buf_is_valid(shown.buffer) then
    vim.api.nvim_buf_clear_namespace(shown.buffer, space, 0, -1)
  end
  shown = nil
  if asked then
    asked.client:cancel_request(asked.id)
    asked = nil
  end
end

--- @param buffer integer
--- @param row integer 0-based
--- @param column integer in bytes
--- @param text string
local function show(buffer, row, column, text)
  local first, below = text, {}
  for number, line in ipairs(vim.split(text, '\n')) do
    if number == 1 then
      first = line
    else
      table.insert(below, { { line, 'Comment' } })
    end
  end
  vim.api.nvim_buf_set_extmark(buffer, space, row, column, {
    virt_text = { { first, 'Comment' } },
    virt_text_pos = 'inline',
    virt_lines = #below > 0 and below or nil,
  })
  shown = { buffer = buffer, row = row, column = column, text = text }
end

local function ask()
  local buffer = vim.api.nvim_get_current_buf()
  local client = vim.lsp.get_clients({ bufnr = buffer, name = 'inhouse' })[1]
  if vim.fn.mode() ~= 'i' or not (client and client.server_capabilities.inlineCompletionProvider) then
    return
  end
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = AUTOMATIC }
  local tick, cursor = vim.b[buffer].changedtick, vim.api.nvim_win_get_cursor(0)
  local _, id = client:request(METHOD, params, function(err, result)
    asked = nil
    local item = not err and result and (result.items or result)[1]
    local here = vim.api.nvim_get_current_buf() == buffer
      and vim.b[buffer].changedtick == tick
      and vim.deep_equal(vim.api.nvim_win_get_cursor(0), cursor)
    if item and here and vim.fn.mode() == 'i' then
      show(buffer, cursor[1] - 1, cursor[2], item.insertText)
    end
  end, buffer)
  asked = id and { client = client, id = id } or nil
end

--- Put in what is shown.
--- @return boolean taken whether there was something
function M.accept()
  local taken = shown
  if not taken or taken.buffer ~= vim.api.nvim_get_current_buf() then
    return false
  end
  M.clear()
  local lines = vim.split(taken.text, '\n')
  vim.api.nvim_buf_set_text(taken.buffer, taken.row, taken.column, taken.row, taken.column, lines)
  local column = #lines[#lines] + (#lines == 1 and taken.column or 0)
  vim.api.nvim_win_set_cursor(0, { taken.row + #lines, column })
  return true
end

--- Ask whenever the user pauses in insert mode; `options.accept` is the key that takes it.
function M.enable()
  local group = vim.api.nvim_create_augroup('inhouse-completion', {})
  vim.api.nvim_create_autocmd({ 'TextChangedI', 'CursorMovedI' }, {
    group = group,
    callback = function()
      M.clear()
      timer:start(PAUSE_MS, 0, vim.schedule_wrap(ask))
    end,
  })
  vim.api.nvim_create_autocmd({ 'InsertLeave', 'BufLeave' }, { group = group, callback = M.clear })
  vim.keymap.set('i', config.options.accept, function()
    if not M.accept() then
      vim.api.nvim_feedkeys(vim.keycode(config.options.accept), 'n', false)
    end
  end, { desc = 'Take the completion of inhouse' })
end

return M
