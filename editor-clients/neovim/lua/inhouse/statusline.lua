--- What the server holds, in a few words for the status line.
---
--- It is asked after each answer and each save, and when the line is drawn and the last answer is old. Drawing never
--- waits: it shows what was known.
local M = {}

local OLD_MS = 30000

--- @class inhouse.Shown
--- @field text string
--- @field asked integer? when, in milliseconds
--- @field waiting boolean

local shown = {} --- @type table<integer, inhouse.Shown> by client id
local listening = false

--- The words for a result of inhouse/status.
--- @param status table
--- @return string
function M.describe(status)
  local function given(value)
    return value ~= nil and value ~= vim.NIL and value ~= ''
  end
  local parts = { given(status.adapter) and status.adapter or 'no adapter' }
  table.insert(parts, given(status.index_commit) and 'index ' .. status.index_commit:sub(1, 7) or 'no index yet')
  if given(status.pending) and status.pending > 0 then
    table.insert(parts, ('%d pending'):format(status.pending))
  end
  -- A status line would read a percent sign as the start of an item.
  return (table.concat(parts, ' · '):gsub('[%%%c]', '?'))
end

--- @param client vim.lsp.Client
local function ask(client)
  local state = shown[client.id] or { text = '', waiting = false }
  shown[client.id] = state
  if state.waiting or not client.initialized then
    return
  end
  state.asked = vim.uv.now()
  state.waiting = client:request('inhouse/status', vim.empty_dict(), function(err, result)
    state.waiting = false
    if not err then
      state.text = M.describe(result)
      vim.cmd('redrawstatus!')
    end
  end)
end

local function ask_all()
  for _, client in ipairs(vim.lsp.get_clients({ name = 'inhouse' })) do
    ask(client)
  end
end

--- Listen for what changes the state, from the first time that a line is drawn.
local function listen()
  listening = true
  local group = vim.api.nvim_create_augroup('inhouse_statusline', {})
  vim.api.nvim_create_autocmd('User', { group = group, pattern = 'InhouseAnswered', callback = ask_all })
  vim.api.nvim_create_autocmd('BufWritePost', {
    group = group,
    callback = function(event)
      for _, client in ipairs(vim.lsp.get_clients({ name = 'inhouse', bufnr = event.buf })) do
        ask(client)
      end
    end,
  })
end

--- Adapter, index commit and changed files that are not indexed yet; empty while nothing is known of this buffer's
--- repository.
--- @return string
function M.statusline()
  if not listening then
    listen()
  end
  local client = vim.lsp.get_clients({ name = 'inhouse', bufnr = 0 })[1]
  if not client then
    return ''
  end
  local state = shown[client.id]
  if not state or not state.asked or vim.uv.now() - state.asked > OLD_MS then
    ask(client)
  end
  return shown[client.id].text
end

return M
