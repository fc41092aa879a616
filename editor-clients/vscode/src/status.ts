/** The status-bar item: which adapter answers, from which commit, and how many changed files are not indexed yet. */
import * as vscode from 'vscode'
import type { Connection } from './client'
import { pendingFiles } from './conversation'
import type { Status } from './protocol'

/** The server indexes after a save; asked at once, it would still count the saved file. */
const AFTER_SAVE_MS = 2000

export class StatusItem implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem('inhouse.status', vscode.StatusBarAlignment.Right, 50)
  private readonly subscriptions: vscode.Disposable[]
  private timer: NodeJS.Timeout | undefined

  constructor(private readonly connection: Connection, onAnswered: vscode.Event<void>) {
    this.item.name = 'inhouse'
    this.subscriptions = [
      connection.onChange(() => this.refresh()),
      onAnswered(() => this.refresh()),
      vscode.workspace.onDidSaveTextDocument(() => this.refresh(AFTER_SAVE_MS)),
      vscode.window.onDidChangeWindowState(({ focused }) => focused && this.refresh()),
    ]
    this.refresh()
    this.item.show()
  }

  dispose(): void {
    clearTimeout(this.timer)
    vscode.Disposable.from(this.item, ...this.subscriptions).dispose()
  }

  private refresh(delayMs = 0): void {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => void this.show(), delayMs)
  }

  private async show(): Promise<void> {
    if (!this.connection.running) {
      this.set('$(circle-slash) inhouse', 'inhouse does not run. Click to start it.', 'inhouse.restart')
      return
    }
    try {
      const client = await this.connection.ready()
      const status = await client?.sendRequest<Status>('inhouse/status', {})
      if (status) this.set(...texts(status), 'inhouse.chat.focus')
    } catch (error) {
      this.set('$(warning) inhouse', error instanceof Error ? error.message : String(error), 'inhouse.showLog')
    }
  }

  private set(text: string, tooltip: string, command: string): void {
    Object.assign(this.item, { text, tooltip, command })
  }
}

function texts(status: Status): [text: string, tooltip: string] {
  const adapter = status.adapter ?? 'base'
  const commit = status.index_commit ? status.index_commit.slice(0, 7) : 'no index'
  const pending = status.pending ? ` +${status.pending}` : ''
  const tooltip = [
    `Model: ${status.base_model}${status.model_loaded ? '' : ' (not loaded)'}`,
    `Adapter: ${status.adapter ?? 'none'}`,
    `Index: ${status.index_commit || 'none'}, ${status.files} files`,
    ...(status.pending ? [pendingFiles(status.pending)] : []),
  ]
  return [`$(home) ${adapter} @ ${commit}${pending}`, tooltip.join('\n')]
}
