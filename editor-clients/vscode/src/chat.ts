/** The chat view: asks the server, and keeps the conversation while the view itself comes and goes. */
import { randomBytes } from 'node:crypto'
import * as vscode from 'vscode'
import { ProgressType, State, WorkDoneProgress, type LanguageClient } from 'vscode-languageclient/node'
import type { Connection } from './client'
import {
  historyOf, newTurn, placeLabel, type FromView, type Source, type ToView, type Turn,
} from './conversation'
import type { Answer, Question } from './protocol'

const TEXT = new ProgressType<{ text: string }>()

export class Chat implements vscode.WebviewViewProvider {
  static readonly view = 'inhouse.chat'
  private readonly ended = new vscode.EventEmitter<void>()
  private view: vscode.WebviewView | undefined
  private turns: Turn[] = []
  private running: vscode.CancellationTokenSource | undefined
  private asked = 0
  /** An answer has ended, whatever its end. */
  readonly onAnswered = this.ended.event

  constructor(private readonly resources: vscode.Uri, private readonly connection: () => Connection) {}

  resolveWebviewView(view: vscode.WebviewView): void {
    this.view = view
    const assets = vscode.Uri.joinPath(this.resources, 'dist')
    view.webview.options = { enableScripts: true, localResourceRoots: [assets] }
    view.webview.html = page(view.webview, assets)
    view.webview.onDidReceiveMessage((message: FromView) => this.receive(message))
    view.onDidDispose(() => (this.view = undefined))
  }

  /** Show the view and ask there. An answer under way is stopped: the server writes one at a time. */
  async ask(question: Question): Promise<void> {
    this.cancel()
    const running = (this.running = new vscode.CancellationTokenSource())
    const history = historyOf(this.turns)
    const turn = newTurn(question.question, this.place(question))
    const index = this.turns.push(turn) - 1
    this.tell({ kind: 'turn', index, turn })
    void vscode.commands.executeCommand(`${Chat.view}.focus`)
    try {
      const client = await this.connection().ready()
      if (!client) throw new Error('inhouse is not running.')
      const answer = await this.stream(client, { ...question, history }, turn, index, running.token)
      turn.text += answer.answer
      turn.sources = answer.citations.map(({ uri, range }) => this.source(uri, range.start.line, range.end.line))
      turn.notes = answer.notes
      turn.provenance = answer.provenance_line
      turn.state = 'answered'
    } catch (error) {
      turn.state = running.token.isCancellationRequested ? 'stopped' : 'failed'
      turn.problem = turn.state === 'stopped' ? 'Stopped.' : error instanceof Error ? error.message : String(error)
    }
    if (this.running === running) this.running = undefined
    running.dispose()
    if (this.turns[index] === turn) this.tell({ kind: 'turn', index, turn })
    this.ended.fire()
  }

  cancel(): void {
    this.running?.cancel()
  }

  clear(): void {
    this.cancel()
    this.turns = []
    this.tell({ kind: 'conversation', turns: [] })
    this.tell({ kind: 'focus' })
  }

  private async stream(
    client: LanguageClient, params: object, turn: Turn, index: number, cancel: vscode.CancellationToken,
  ): Promise<Answer> {
    const name = `inhouse-answer-${++this.asked}`
    const show = (message: ToView): void => {
      if (this.turns[index] === turn && !cancel.isCancellationRequested) this.tell(message)
    }
    const handlers: vscode.Disposable[] = [
      client.onProgress(TEXT, name, ({ text }) => {
        if (cancel.isCancellationRequested) return
        turn.text += text
        show({ kind: 'text', index, text })
      }),
      // A token of ours keeps the progress here, in place of a notification for every question.
      client.onProgress(WorkDoneProgress.type, `${name}-work`, (value) => {
        if (value.kind !== 'report' || turn.text !== '') return
        turn.stage = value.message
        show({ kind: 'turn', index, turn })
      }),
    ]
    // The protocol library would wait for ever for a server that is gone, or that does not heed a cancellation.
    const gone = new Promise<never>((_, reject) => {
      handlers.push(
        cancel.onCancellationRequested(() => reject(new Error('Stopped.'))),
        client.onDidChangeState(({ newState }) => {
          if (newState === State.Stopped) reject(new Error('The language server has stopped; the next question starts it again.'))
        }),
      )
    })
    const adapter = vscode.workspace.getConfiguration('inhouse', this.connection().folder).get('adapter', 'current')
    const asked = { ...params, adapter, partialResultToken: name, workDoneToken: `${name}-work` }
    try {
      return await Promise.race([client.sendRequest<Answer>('inhouse/ask', asked, cancel), gone])
    } finally {
      handlers.forEach((handler) => handler.dispose())
    }
  }

  private async receive(message: FromView): Promise<void> {
    if (message.kind === 'ready') {
      this.tell({ kind: 'conversation', turns: this.turns })
      this.tell({ kind: 'focus' })
    }
    if (message.kind === 'ask') await this.ask({ question: message.question })
    if (message.kind === 'cancel') this.cancel()
    if (message.kind === 'open') {
      const source = this.turns[message.turn]?.sources[message.source]
      if (source) await open(source)
    }
  }

  private source(uri: string, startLine: number, endLine: number): Source {
    const path = vscode.workspace.asRelativePath(vscode.Uri.parse(uri), false)
    return { label: placeLabel(path, startLine, endLine), uri, startLine, endLine }
  }

  private place({ textDocument, range }: Question): string | undefined {
    if (!textDocument || !range) return undefined
    // A selection of whole lines ends at the start of the line after them.
    const end = range.end.line + (range.end.character > 0 || range.end.line === range.start.line ? 1 : 0)
    return this.source(textDocument.uri, range.start.line, end).label
  }

  private tell(message: ToView): void {
    void this.view?.webview.postMessage(message)
  }
}

async function open(source: Source): Promise<void> {
  const uri = vscode.Uri.parse(source.uri)
  if (uri.scheme !== 'file') return
  const selection = new vscode.Range(source.startLine, 0, source.endLine, 0)
  try {
    await vscode.window.showTextDocument(uri, { selection, preview: true })
  } catch (error) {
    void vscode.window.showErrorMessage(`inhouse: ${source.label} cannot be opened: ${error instanceof Error ? error.message : error}`)
  }
}

function page(webview: vscode.Webview, assets: vscode.Uri): string {
  const nonce = randomBytes(16).toString('base64url')
  const asset = (name: string): string => webview.asWebviewUri(vscode.Uri.joinPath(assets, name)).toString()
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src ${webview.cspSource}; script-src 'nonce-${nonce}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="${asset('view.css')}">
<title>inhouse</title>
</head>
<body class="empty">
<p id="welcome">Ask about this repository. The answer names the places in the code that it rests on, and what wrote it.</p>
<main id="conversation" role="log" aria-label="Conversation" tabindex="0"></main>
<form id="form">
<textarea id="question" rows="1" aria-label="Question" placeholder="Ask about this repository"></textarea>
<button id="send" type="submit">Ask</button>
</form>
<script nonce="${nonce}" src="${asset('view.js')}"></script>
</body>
</html>`
}
