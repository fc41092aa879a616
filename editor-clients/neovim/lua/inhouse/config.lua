--- Settings and their defaults.
local M = {}

M.defaults = {
  -- What starts the language server. For a team's server: { 'inhouse', 'lsp', '--server', 'https://…' }.
  cmd = { 'inhouse', 'lsp' },
  -- How the answer's window is opened: any Ex command that makes a window.
  open = 'botright vsplit',
  -- The adapter that answers: 'current', 'base', or a version from `inhouse adapters list`.
  adapter = 'current',
  -- Show what the model would write at the cursor; the server offers it where its settings turn it on.
  inline_completion = false,
  -- The key of insert mode that takes it.
  accept = '<M-l>',
}

M.options = vim.deepcopy(M.defaults)

--- Take the user's settings. An unknown name is an error, since it would do nothing.
--- @param options table?
function M.set(options)
  for name in pairs(options or {}) do
    if M.defaults[name] == nil then
      local known = vim.tbl_keys(M.defaults)
      table.sort(known)
      error(('inhouse: there is no setting %q; there are %s'):format(name, table.concat(known, ', ')), 0)
    end
  end
  M.options = vim.tbl_extend('force', vim.deepcopy(M.defaults), options or {})
end

return M
