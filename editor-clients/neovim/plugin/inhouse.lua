--- The command :Inhouse. Nothing is loaded until it is used.
if vim.g.loaded_inhouse then
  return
end
vim.g.loaded_inhouse = true

local subcommands = {
  ask = function(arguments, range)
    if arguments ~= '' then
      require('inhouse').ask(arguments, range)
      return
    end
    vim.ui.input({ prompt = 'Ask inhouse: ' }, function(question)
      if question and vim.trim(question) ~= '' then
        require('inhouse').ask(question, range)
      end
    end)
  end,
  cancel = function()
    require('inhouse').cancel()
  end,
  review = function()
    require('inhouse').review()
  end,
  status = function()
    require('inhouse').status()
  end,
}

vim.api.nvim_create_user_command('Inhouse', function(command)
  local name, arguments = command.args:match('^(%S+)%s*(.-)%s*$')
  local subcommand = subcommands[name]
  if not subcommand then
    local problem = ('inhouse: %q is none of ask, cancel, review, status'):format(command.args)
    vim.notify(problem, vim.log.levels.ERROR)
    return
  end
  local range = command.range > 0 and { first = command.line1, last = command.line2 } or nil
  subcommand(arguments, range)
end, {
  nargs = '+',
  range = true,
  desc = 'Ask about this repository',
  complete = function(lead, line)
    if line:match('Inhouse%s+%S*$') then
      local names = vim.tbl_filter(function(name)
        return vim.startswith(name, lead)
      end, vim.tbl_keys(subcommands))
      table.sort(names)
      return names
    end
    return {}
  end,
})
