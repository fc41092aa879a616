--- :checkhealth inhouse
local M = {}

function M.check()
  local health, config = vim.health, require('inhouse.config')
  health.start('inhouse')
  if vim.fn.has('nvim-0.11') == 1 then
    health.ok('Neovim ' .. tostring(vim.version()))
  else
    health.error('Neovim 0.11 or newer is needed')
  end
  local program = config.options.cmd[1]
  if vim.fn.executable(program) == 1 then
    health.ok(('`%s` is %s'):format(program, vim.fn.exepath(program)))
  else
    local remedy = 'Install inhouse, or give its path in setup({ cmd = … }).'
    health.error(('`%s` cannot be run'):format(program), remedy)
  end
  local clients = vim.lsp.get_clients({ name = 'inhouse' })
  for _, client in ipairs(clients) do
    health.ok(('connected for %s'):format(client.root_dir))
    local answer, problem = client:request_sync('inhouse/status', vim.empty_dict(), 5000)
    if answer and answer.result then
      health.info(require('inhouse.statusline').describe(answer.result))
    else
      local said = answer and answer.err and answer.err.message or problem or 'no answer'
      health.warn(('the server does not say what it holds: %s'):format(said), 'See .inhouse/logs in the repository.')
    end
  end
  if #clients == 0 then
    health.info('not connected; :Inhouse ask connects')
  end
end

return M
