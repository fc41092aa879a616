--- The language client: one for each repository, started when it is first needed.
local config = require('inhouse.config')

local M = {}

--- By client id, until it is initialized.
local waiting = {} --- @type table<integer, fun(client: vim.lsp.Client)[]>
--- By partial result token.
local streams = {} --- @type table<string|integer, fun(text: string)>
--- By client id, what to do when its server is gone.
local mourners = {} --- @type table<integer, table<string, fun()>>

--- Deltas of an answer go to whoever asked; everything else is Neovim's to show.
local function on_progress(err, params, ctx)
  local stream = params and streams[params.token]
  if stream then
    stream(params.value.text or '')
  else
    vim.lsp.handlers['$/progress'](err, params, ctx)
  end
end

--- @param buffer integer
--- @return string? root the repository that a file is in
local function root_of(buffer)
  if vim.bo[buffer].buftype ~= '' then
    return nil
  end
  return vim.fs.root(buffer, '.git')
end

--- The client's configuration, for `vim.lsp.config` and `vim.lsp.start`.
--- @return vim.lsp.Config
function M.lsp_config()
  return {
    name = 'inhouse',
    -- The server serves the repository that it is started in, wherever Neovim itself was.
    cmd = function(dispatchers, starting)
      return vim.lsp.rpc.start(config.options.cmd, dispatchers, { cwd = starting and starting.root_dir })
    end,
    root_dir = function(buffer, on_dir)
      local root = root_of(buffer)
      if root then
        on_dir(root)
      end
    end,
    handlers = { ['$/progress'] = on_progress },
    on_init = function(client)
      for _, callback in ipairs(waiting[client.id] or {}) do
        vim.schedule(function()
          callback(client)
        end)
      end
      waiting[client.id] = nil
    end,
    on_exit = function(_, _, client_id)
      waiting[client_id] = nil
      local bereaved = mourners[client_id] or {}
      mourners[client_id] = nil
      vim.schedule(function()
        for _, gone in pairs(bereaved) do
          gone()
        end
      end)
    end,
  }
end

--- Call `callback` with the initialized client of the repository that `buffer` is in, or else the working folder.
--- @param buffer integer
--- @param callback fun(client: vim.lsp.Client)
function M.with_client(buffer, callback)
  local root = root_of(buffer) or vim.fs.root(vim.fn.getcwd(), '.git')
  if not root then
    vim.notify('inhouse: this is not in a git repository', vim.log.levels.ERROR)
    return
  end
  local start = vim.tbl_extend('force', M.lsp_config(), { root_dir = root })
  local id = vim.lsp.start(start, { bufnr = buffer, attach = root_of(buffer) ~= nil, silent = false })
  local client = id and vim.lsp.get_client_by_id(id)
  if not client then
    return
  elseif client.initialized then
    callback(client)
  else
    waiting[client.id] = waiting[client.id] or {}
    table.insert(waiting[client.id], callback)
  end
end

--- Hand the deltas that arrive under `token` to `stream`; with no stream, stop doing so.
--- @param token string
--- @param stream fun(text: string)?
function M.on_stream(token, stream)
  streams[token] = stream
end

--- Call `gone` when the server of this client ends before the answer does; with nil, no longer.
--- @param client_id integer
--- @param token string
--- @param gone fun()?
function M.on_gone(client_id, token, gone)
  mourners[client_id] = mourners[client_id] or {}
  mourners[client_id][token] = gone
end

return M
