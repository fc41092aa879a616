// VS Code's own protocol library as a client that knows nothing of inhouse: only standard LSP methods are used.
// node client.mjs INHOUSE ROOT FILE -> one JSON object on standard output
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import {
  CodeActionKind, CodeActionRequest, CodeActionResolveRequest, createProtocolConnection,
  DidChangeTextDocumentNotification, DidOpenTextDocumentNotification, ExecuteCommandRequest, ExitNotification,
  InitializedNotification, InitializeRequest, ShowDocumentRequest, ShutdownRequest, StreamMessageReader,
  StreamMessageWriter, WorkDoneProgress, WorkDoneProgressCreateRequest,
} from 'vscode-languageserver-protocol/node'

const [inhouse, root, file] = process.argv.slice(2)
const server = spawn(inhouse, ['lsp', '--repo', root], { stdio: ['pipe', 'pipe', 'inherit'] })
const connection = createProtocolConnection(new StreamMessageReader(server.stdout), new StreamMessageWriter(server.stdin))
const bars = []
const shown = []
connection.onRequest(WorkDoneProgressCreateRequest.type, ({ token }) => {
  connection.onProgress(WorkDoneProgress.type, token, (value) => bars.push(value.kind))
})
const document = new Promise((resolve) => {
  connection.onRequest(ShowDocumentRequest.type, (params) => {
    shown.push(params.uri)
    resolve(params.uri)
    return { success: true }
  })
})
connection.listen()

const { capabilities } = await connection.sendRequest(InitializeRequest.type, {
  processId: process.pid,
  rootUri: pathToFileURL(root).href,
  capabilities: {
    general: { positionEncodings: ['utf-16'] },
    window: { workDoneProgress: true, showDocument: { support: true } },
    textDocument: {
      codeAction: {
        dataSupport: true,
        resolveSupport: { properties: ['command'] },
        codeActionLiteralSupport: { codeActionKind: { valueSet: [CodeActionKind.Empty] } },
      },
    },
  },
})
await connection.sendNotification(InitializedNotification.type, {})
const uri = pathToFileURL(`${root}/${file}`).href
const text = readFileSync(`${root}/${file}`, 'utf8')
await connection.sendNotification(DidOpenTextDocumentNotification.type, {
  textDocument: { uri, languageId: 'python', version: 1, text },
})
const end = { line: text.split('\n').length - 1, character: 0 }
await connection.sendNotification(DidChangeTextDocumentNotification.type, {
  textDocument: { uri, version: 2 },
  contentChanges: [{ range: { start: end, end }, text: 'def zebra_discount(amount):\n    return amount / 2\n' }],
})
const actions = await connection.sendRequest(CodeActionRequest.type, {
  textDocument: { uri },
  range: { start: { line: 0, character: 0 }, end: { line: 2, character: 0 } },
  context: { diagnostics: [] },
})
const { command } = await connection.sendRequest(CodeActionResolveRequest.type, actions[0])
const result = await connection.sendRequest(ExecuteCommandRequest.type, {
  command: command.command,
  arguments: command.arguments,
})
const answer = readFileSync(new URL(await document), 'utf8')
await connection.sendRequest(ShutdownRequest.type)
await connection.sendNotification(ExitNotification.type)
const code = await new Promise((resolve) => server.on('exit', resolve))
console.log(JSON.stringify({ capabilities, titles: actions.map((action) => action.title), result, shown, bars, answer, code }))
process.exit(0)
