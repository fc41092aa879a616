--- inhouse: ask about the repository you are in. See :help inhouse.
local answers = require('inhouse.answer')
local client_of = require('inhouse.client')
local config = require('inhouse.config')

local M = {}

local asked = 0
local running = {} --- @type table<string, fun()> what cancels each answer under way

--- Attach to every file in a git repository, so that unsaved buffers are what is read and saving refreshes the
--- index. Without it, :Inhouse starts the client when it is first used.
--- @param options table? see :help inhouse-settings
function M.setup(options)
  config.set(options)
  vim.lsp.config('inhouse', client_of.lsp_config())
  vim.lsp.enable('inhouse')
  if config.options.inline_completion then
    require('inhouse.complete').enable()
  end
end

--- @param buffer integer
--- @param range { first: integer, last: integer } lines, 1-based
local function lines_of(buffer, range)
  local first, last = { line = range.first - 1, character = 0 }, { line = range.last, character = 0 }
  return { uri = vim.uri_from_bufnr(buffer) }, { start = first, ['end'] = last }
end

--- Ask, and stream the answer into a window.
--- @param question string
--- @param range { first: integer, last: integer }? marked lines of the current buffer, 1-based
function M.ask(question, range)
  local buffer = vim.api.nvim_get_current_buf()
  asked = asked + 1
  local token = ('inhouse-answer-%d'):format(asked)
  local params = { question = question, adapter = config.options.adapter, partialResultToken = token }
  if range then
    params.textDocument, params.range = lines_of(buffer, range)
  end
  client_of.with_client(buffer, function(client)
    local answer = answers.open(question, function()
      if running[token] then
        running[token]()
      end
    end)
    local function ended()
      client_of.on_stream(token, nil)
      client_of.on_gone(client.id, token, nil)
      running[token] = nil
      vim.api.nvim_exec_autocmds('User', { pattern = 'InhouseAnswered', data = { buffer = answer.buffer } })
    end
    client_of.on_stream(token, function(text)
      answer:append(text)
    end)
    local sent, id = client:request('inhouse/ask', params, function(err, result)
      if not running[token] then
        return
      elseif err then
        answer:fail(err.message)
      else
        answer:finish(result, client.root_dir)
      end
      ended()
    end, buffer)
    if not sent then
      answer:fail('The language server has stopped; :Inhouse ask starts it again.')
      ended()
      return
    end
    client_of.on_gone(client.id, token, function()
      answer:fail('The language server has stopped; :Inhouse ask starts it again.')
      ended()
    end)
    running[token] = function()
      client:cancel_request(id)
      -- Neovim keeps the answer to a cancelled request to itself, so this is the end of it.
      answer:fail('Stopped.')
      ended()
    end
  end)
end

--- Stop every answer that is being written.
function M.cancel()
  for _, stop in pairs(vim.deepcopy(running)) do
    stop()
  end
end

--- Run a command of the server, and hand its result on; the user is told of a failure.
local function run(command, argument, done)
  client_of.with_client(vim.api.nvim_get_current_buf(), function(client)
    local asking = { command = command, arguments = { argument } }
    client:request('workspace/executeCommand', asking, function(err, result)
      if err then
        vim.notify('inhouse: ' .. err.message, vim.log.levels.ERROR)
      else
        done(result, client)
      end
    end)
  end)
end

--- Have the model change lines. The change is made when it applies and parses; else the server says why not.
--- @param instruction string what to do
--- @param range { first: integer, last: integer } lines of the current buffer, 1-based
function M.change(instruction, range)
  local asked_for = { instruction = instruction }
  asked_for.textDocument, asked_for.range = lines_of(vim.api.nvim_get_current_buf(), range)
  run('inhouse.change', asked_for, function(result)
    vim.api.nvim_exec_autocmds('User', { pattern = 'InhouseChanged', data = result })
  end)
end

--- Review what is not on the main branch yet: findings become diagnostics, and fill the quickfix list.
--- `vim.lsp.buf.code_action()` on one offers its fix; saving reviews again.
function M.review()
  run('inhouse.review', nil, function(result, client)
    -- The diagnostics came before the result, also those of files that are not open.
    local found = vim.diagnostic.get(nil, { namespace = vim.lsp.diagnostic.get_namespace(client.id) })
    vim.fn.setqflist({}, ' ', { title = 'inhouse review', items = vim.diagnostic.toqflist(found) })
    if #found > 0 then
      vim.cmd('copen')
    end
    vim.api.nvim_exec_autocmds('User', { pattern = 'InhouseReviewed', data = result })
  end)
end

--- Show what the server holds.
function M.status()
  client_of.with_client(vim.api.nvim_get_current_buf(), function(client)
    client:request('inhouse/status', vim.empty_dict(), function(err, result)
      vim.notify(err and ('inhouse: ' .. err.message) or vim.inspect(result))
    end)
  end)
end

--- Adapter, index commit and pending files, for 'statusline'. See :help inhouse-statusline.
--- @return string
function M.statusline()
  return require('inhouse.statusline').statusline()
end

return M
