--- The window of one answer: the text as it streams in, then its sources, then what produced it.
local config = require('inhouse.config')

local M = {}

local namespace = vim.api.nvim_create_namespace('inhouse')
local count = 0

--- @class inhouse.Answer
--- @field buffer integer
--- @field private citations table<integer, lsp.Location> by extmark id
local Answer = {}
Answer.__index = Answer

--- Open a window for the answer to `question`. The cursor stays where the user is.
--- @param question string
--- @param cancel fun()
--- @return inhouse.Answer
function M.open(question, cancel)
  count = count + 1
  local from = vim.api.nvim_get_current_win()
  vim.cmd(config.options.open)
  local buffer = vim.api.nvim_create_buf(false, true)
  vim.api.nvim_win_set_buf(0, buffer)
  vim.api.nvim_buf_set_name(buffer, ('inhouse://answer/%d'):format(count))
  vim.wo.wrap, vim.wo.linebreak = true, true
  vim.bo[buffer].modeline = false
  vim.bo[buffer].filetype = 'markdown'
  vim.bo[buffer].modifiable = false
  vim.api.nvim_set_current_win(from)

  local answer = setmetatable({ buffer = buffer, citations = {} }, Answer)
  local function map(key, action, what)
    vim.keymap.set('n', key, action, { buffer = buffer, nowait = true, desc = 'inhouse: ' .. what })
  end
  map('gf', function() answer:open_citation() end, 'open the source under the cursor')
  map('<CR>', function() answer:open_citation() end, 'open the source under the cursor')
  map('<C-c>', cancel, 'stop the answer')
  map('q', '<Cmd>close<CR>', 'close the answer')
  answer:append('# ' .. question:gsub('%s+', ' ') .. '\n\n')
  return answer
end

--- Add text at the end. Windows whose cursor is on the last line follow it.
--- @param text string
function Answer:append(text)
  if not vim.api.nvim_buf_is_valid(self.buffer) then
    return
  end
  local last = vim.api.nvim_buf_line_count(self.buffer)
  local following = vim.tbl_filter(function(window)
    return vim.api.nvim_win_get_cursor(window)[1] == last
  end, vim.fn.win_findbuf(self.buffer))
  vim.bo[self.buffer].modifiable = true
  local end_column = #vim.api.nvim_buf_get_lines(self.buffer, last - 1, last, true)[1]
  -- A NUL stands for a line end inside a line, as Neovim has it.
  local lines = vim.split((text:gsub('%z', '\n')):gsub('\r\n', '\n'), '\n', { plain = true })
  vim.api.nvim_buf_set_text(self.buffer, last - 1, end_column, last - 1, end_column, lines)
  vim.bo[self.buffer].modifiable = false
  local now = vim.api.nvim_buf_line_count(self.buffer)
  for _, window in ipairs(following) do
    vim.api.nvim_win_set_cursor(window, { now, 0 })
  end
end

--- Add what follows the text, and fill the quickfix list with the sources.
--- @param result table the result of inhouse/ask
--- @param root string
function Answer:finish(result, root)
  if not vim.api.nvim_buf_is_valid(self.buffer) then
    return
  end
  if result.answer ~= '' then
    self:append(result.answer)
  end
  if result.reason == 'cancelled' then
    self:append('\n\n*Stopped.*')
  end
  if #result.citations > 0 then
    self:append('\n\n## Sources\n')
  end
  local items = {}
  for _, location in ipairs(result.citations) do
    local file, line = vim.uri_to_fname(location.uri), location.range.start.line + 1
    local shown = (vim.fs.relpath(root, file) or file):gsub('%c', '?')
    self:append(('\n- %s:%d'):format(shown, line))
    local row = vim.api.nvim_buf_line_count(self.buffer) - 1
    self.citations[vim.api.nvim_buf_set_extmark(self.buffer, namespace, row, 0, {})] = location
    local last = location.range['end'].line
    table.insert(items, { filename = file, lnum = line, end_lnum = last, text = shown })
  end
  for _, note in ipairs(result.notes) do
    self:append('\n\n*' .. note .. '*')
  end
  self:append('\n\n---\n' .. result.provenance_line)
  vim.fn.setqflist({}, ' ', { title = 'inhouse: sources', items = items })
end

--- @param message string
function Answer:fail(message)
  self:append('\n\n*' .. message .. '*')
end

--- Open the source on the cursor's line, in the window that the user came from.
function Answer:open_citation()
  local row = vim.api.nvim_win_get_cursor(0)[1] - 1
  local mark = vim.api.nvim_buf_get_extmarks(self.buffer, namespace, { row, 0 }, { row, -1 }, { limit = 1 })[1]
  local location = mark and self.citations[mark[1]]
  if not location then
    vim.notify('inhouse: there is no source on this line', vim.log.levels.WARN)
    return
  end
  local previous = vim.fn.win_getid(vim.fn.winnr('#'))
  if previous == 0 or previous == vim.api.nvim_get_current_win() then
    vim.cmd('leftabove vsplit')
  else
    vim.api.nvim_set_current_win(previous)
  end
  vim.lsp.util.show_document(location, 'utf-16', { focus = true })
end

return M
