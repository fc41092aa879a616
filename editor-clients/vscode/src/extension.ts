/** inhouse for VS Code: commands, the chat view and the status-bar item over one language client. */
import * as vscode from 'vscode'
import { Chat } from './chat'
import { Connection, tokenKey } from './client'
import { StatusItem } from './status'

export function activate(context: vscode.ExtensionContext): void {
  const connection: Connection = new Connection(context.secrets, (question) => void chat.ask(question))
  const chat = new Chat(context.extensionUri, () => connection)
  const commands: Record<string, () => unknown> = {
    'inhouse.chat.ask': () => ask(chat),
    'inhouse.chat.askSelection': () => ask(chat, vscode.window.activeTextEditor),
    'inhouse.chat.explain': () => runCodeAction(connection, 'inhouse.explain'),
    'inhouse.chat.convention': () => runCodeAction(connection, 'inhouse.convention'),
    'inhouse.changeSelection': () => change(connection),
    'inhouse.chat.cancel': () => chat.cancel(),
    'inhouse.chat.new': () => chat.clear(),
    'inhouse.reviewChange': () => review(connection),
    'inhouse.setToken': () => setToken(connection, context.secrets),
    'inhouse.showLog': () => connection.showLog(),
    'inhouse.restart': () => connection.restart(),
  }
  context.subscriptions.push(
    connection,
    new StatusItem(connection, chat.onAnswered),
    vscode.window.registerWebviewViewProvider(Chat.view, chat),
    ...Object.entries(commands).map(([id, run]) => vscode.commands.registerCommand(id, run)),
    vscode.workspace.onDidChangeConfiguration((change) => {
      const restarts = ['command', 'server', 'repository']
      if (restarts.some((name) => change.affectsConfiguration(`inhouse.${name}`))) void connection.restart()
    }),
  )
  void connection.ready()
}

/** Ask for a question, and answer it in the chat view; with `editor`, about the code that is marked there. */
async function ask(chat: Chat, editor?: vscode.TextEditor): Promise<void> {
  const marked = editor && { textDocument: { uri: editor.document.uri.toString() }, range: editor.selection }
  const prompt = marked ? 'Ask about the selection' : 'Ask about this repository'
  const question = (await vscode.window.showInputBox({ prompt, placeHolder: 'How do we …?' }))?.trim()
  if (!question) return
  const range = marked && { start: marked.range.start, end: marked.range.end }
  await chat.ask({ question, ...(marked && { textDocument: marked.textDocument, range }) })
}

/** Run the server's code action of this kind on the selection: its question is the server's to word. */
async function runCodeAction(connection: Connection, kind: string): Promise<void> {
  const editor = vscode.window.activeTextEditor
  if (!editor || !(await connection.ready())) return
  const actions = await vscode.commands.executeCommand<vscode.CodeAction[]>(
    'vscode.executeCodeActionProvider', editor.document.uri, editor.selection, kind, 1,
  )
  const command = actions[0]?.command
  if (command) await vscode.commands.executeCommand(command.command, ...(command.arguments ?? []))
  else void vscode.window.showWarningMessage('inhouse: this file is not in the repository. Save it there first.')
}

/** Have the model change what is marked. The server makes the change when it applies and parses, and else says why not. */
async function change(connection: Connection): Promise<void> {
  const editor = vscode.window.activeTextEditor
  const asking = { prompt: 'Change the selection', placeHolder: 'Use our HTTP client' }
  const instruction = editor && (await vscode.window.showInputBox(asking))?.trim()
  if (!editor || !instruction) return
  const { document: { uri }, selection: { start, end } } = editor
  const asked = { textDocument: { uri: uri.toString() }, range: { start, end }, instruction }
  const progress = { location: vscode.ProgressLocation.Notification, title: 'inhouse: changing the selection' }
  await vscode.window.withProgress(progress, () => run(connection, 'inhouse.change', asked))
}

/** Run a command of the server; `undefined` when it failed, and the user knows why. */
async function run<Result>(connection: Connection, command: string, ...args: object[]): Promise<Result | void> {
  try {
    const client = await connection.ready()
    return await client?.sendRequest<Result>('workspace/executeCommand', { command, arguments: args })
  } catch (error) {
    void vscode.window.showErrorMessage(`inhouse: ${error instanceof Error ? error.message : error}`)
  }
}

/** Review what is not on the main branch yet. The server publishes the findings and tells how many there are. */
async function review(connection: Connection): Promise<void> {
  const found = await run<{ findings: number }>(connection, 'inhouse.review')
  if (found && found.findings > 0) await vscode.commands.executeCommand('workbench.actions.view.problems')
}

async function setToken(connection: Connection, secrets: vscode.SecretStorage): Promise<void> {
  const server = vscode.workspace.getConfiguration('inhouse', connection.folder).get('server', '')
  if (!server) return void vscode.window.showErrorMessage('inhouse: no team\'s server is set. Set inhouse.server first.')
  const prompt = `Token for ${server}; empty removes it`
  const token = await vscode.window.showInputBox({ prompt, password: true, ignoreFocusOut: true })
  if (token === undefined) return
  await (token ? secrets.store(tokenKey(server), token.trim()) : secrets.delete(tokenKey(server)))
  await connection.restart()
}
