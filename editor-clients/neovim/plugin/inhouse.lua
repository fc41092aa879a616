--- The command :Inhouse. Nothing is loaded until it is used.
if vim.g.loaded_inhouse then
  return
end
vim.g.loaded_inhouse = true

--- Hand `words` on, or what the user is asked for in their place.
local function with_words(words, prompt, take)
  if words ~= '' then
    take(words)
    return
  end
  vim.ui.input({ prompt = prompt }, function(said)
    if said and vim.trim(said) ~= '' then
      take(said)
    end
  end)
end

local subcommands = {
  ask = function(arguments, range)
    with_words(arguments, 'Ask inhouse: ', function(question)
      require('inhouse').ask(question, range)
    end)
  end,
  change = function(arguments, range)
    local line = vim.api.nvim_win_get_cursor(0)[1]
    with_words(arguments, 'Change these lines: ', function(instruction)
      require('inhouse').change(instruction, range or { first = line, last = line })
    end)
  end,
}
for _, name in ipairs({ 'cancel', 'review', 'status' }) do
  subcommands[name] = function()
    require('inhouse')[name]()
  end
end

vim.api.nvim_create_user_command('Inhouse', function(command)
  local name, arguments = command.args:match('^(%S+)%s*(.-)%s*$')
  local subcommand = subcommands[name]
  if not subcommand then
    local problem = 'inhouse: %q is none of ask, cancel, change, review, status'
    return vim.notify(problem:format(command.args), vim.log.levels.ERROR)
  end
  local range = command.range > 0 and { first = command.line1, last = command.line2 } or nil
  subcommand(arguments, range)
end, {
  nargs = '+',
  range = true,
  desc = 'Ask about this repository',
  complete = function(lead, line)
    local names = line:match('Inhouse%s+%S*$') and vim.tbl_keys(subcommands) or {}
    return vim.fn.sort(vim.tbl_filter(function(name)
      return vim.startswith(name, lead)
    end, names))
  end,
})
