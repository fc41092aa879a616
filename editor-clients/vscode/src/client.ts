/** The language client of the workspace folder: started with the extension, again after a change of its settings. */
import { spawn, type ChildProcess } from 'node:child_process'
import * as vscode from 'vscode'
import {
  CloseAction, ErrorAction, LanguageClient, State, type LanguageClientOptions,
} from 'vscode-languageclient/node'
import type { Question } from './protocol'

/** Tokens are kept by server: a folder's settings that name another server never get this one's. */
export const tokenKey = (server: string): string => `token:${server}`

/** Says nothing to the user about a start that fails: `Connection` does, without the library's traceback. */
class Client extends LanguageClient {
  override error(message: string, data?: unknown, notify?: boolean | 'force'): void {
    super.error(message, data, this.state === State.Running ? notify : false)
  }
}

export class Connection implements vscode.Disposable {
  private readonly log = vscode.window.createOutputChannel('inhouse', { log: true })
  private readonly changed = new vscode.EventEmitter<void>()
  private client: LanguageClient | undefined
  private starting: Promise<LanguageClient | undefined> | undefined
  /** The server was started, stopped, or has gone. */
  readonly onChange = this.changed.event

  constructor(
    private readonly secrets: vscode.SecretStorage,
    /** Where the server's own command `inhouse.ask`, such as a code action's, is answered. */
    private readonly ask: (question: Question) => void,
  ) {}

  get folder(): vscode.WorkspaceFolder | undefined {
    return vscode.workspace.workspaceFolders?.[0]
  }

  get running(): boolean {
    return this.client?.state === State.Running
  }

  /** The client, started if need be; `undefined` when it cannot be, and the user knows why. */
  ready(): Promise<LanguageClient | undefined> {
    if (this.running) return Promise.resolve(this.client)
    return (this.starting ??= this.start().finally(() => (this.starting = undefined)))
  }

  async restart(): Promise<void> {
    await this.stop()
    await this.ready()
  }

  async stop(): Promise<void> {
    await this.starting
    const client = this.client
    this.client = undefined
    await client?.dispose().catch(() => undefined) // A server that is gone cannot say goodbye.
    this.changed.fire()
  }

  showLog(): void {
    this.log.show()
  }

  async dispose(): Promise<void> {
    await this.stop()
    this.log.dispose()
    this.changed.dispose()
  }

  private async start(): Promise<LanguageClient | undefined> {
    const { folder } = this
    if (!folder) {
      void vscode.window.showErrorMessage('inhouse: no folder is open. Open the folder of a git repository.')
      return undefined
    }
    await this.client?.dispose().catch(() => undefined)
    let said = ''
    const client = new Client('inhouse', 'inhouse', () => this.spawn(folder, (text) => (said += text)), {
      ...this.options(folder),
      outputChannel: this.log,
    })
    client.onDidChangeState(() => this.changed.fire())
    this.client = client
    try {
      await client.start()
      return client
    } catch (error) {
      // What the program said last, such as that this is no git repository, beats what the pipe has to say.
      const reason = said.trim() || (error instanceof Error ? error.message : String(error))
      void this.offerHelp(`inhouse cannot be started: ${reason}`)
      return undefined
    }
  }

  private async spawn(folder: vscode.WorkspaceFolder, onError: (text: string) => void): Promise<ChildProcess> {
    const settings = vscode.workspace.getConfiguration('inhouse', folder)
    const server = settings.get('server', '')
    const token = server && (await this.secrets.get(tokenKey(server)))
    const repository = settings.get('repository', '')
    const elsewhere = server ? ['--server', server, ...(repository ? ['--repository', repository] : [])] : []
    const child = spawn(settings.get('command', 'inhouse'), ['lsp', ...elsewhere], {
      cwd: folder.uri.fsPath,
      env: token ? { ...process.env, INHOUSE_TOKEN: token } : process.env,
    })
    child.stderr.on('data', (data) => onError(String(data)))
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', (error) => {
        onError(`${error.message}. Install inhouse, or set inhouse.command to its path.`)
        reject(error)
      })
    })
    return child
  }

  private options(folder: vscode.WorkspaceFolder): LanguageClientOptions {
    return {
      workspaceFolder: folder,
      documentSelector: [{ scheme: 'file', pattern: { baseUri: folder.uri.toString(), pattern: '**/*' } }],
      initializationFailedHandler: () => false,
      errorHandler: {
        error: () => ({ action: ErrorAction.Continue, handled: true }),
        // `inhouse lsp` outlives the server behind it, so one that ends has a reason that starting again does not mend.
        closed: () => ({ action: CloseAction.DoNotRestart, handled: true }),
      },
      middleware: {
        executeCommand: async (command, args, next) => {
          if (command !== 'inhouse.ask') return next(command, args)
          this.ask(typeof args[0] === 'string' ? { question: args[0] } : args[0])
        },
      },
    }
  }

  private async offerHelp(problem: string): Promise<void> {
    const chosen = await vscode.window.showErrorMessage(problem, 'Settings', 'Show Log')
    if (chosen === 'Settings') await vscode.commands.executeCommand('workbench.action.openSettings', 'inhouse.')
    if (chosen === 'Show Log') this.showLog()
  }
}
