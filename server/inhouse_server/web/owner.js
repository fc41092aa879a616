// What the page asks of the owner process.

let repository = ''

/** Whatever is asked from now on is about the repository of that name. */
export function askAbout(name) {
  repository = name
}

/** An answer of the owner as JSON. Throws an Error whose message is for the user. `token` stands for the cookie. */
export async function ask(route, body, signal, token) {
  const answer = await send(route, body, signal, token)
  return answer.json()
}

/** The server-sent events of `route`, each as [name, data]. */
export async function* events(route, body, signal) {
  const answer = await send(route, body, signal)
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  let waiting = ''
  for (;;) {
    const { done, value } = await reader.read().catch(gone)
    if (done) return
    const whole = (waiting + value).split('\n\n')
    waiting = whole.pop()
    for (const event of whole) {
      const [, name, data] = /^event: (.*)\ndata: (.*)$/.exec(event)
      yield [name, JSON.parse(data)]
    }
  }
}

async function send(route, body, signal, token) {
  // The header says that this page asks, which no page of another origin can say.
  const headers = { 'X-Inhouse': '1' }
  if (repository) headers['Inhouse-Repository'] = repository
  if (token) headers.Authorization = `Bearer ${token}`
  if (body) headers['Content-Type'] = 'application/json'
  const request = { method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body), signal }
  const answer = await fetch(route, request).catch(gone)
  if (answer.status === 401 && token) throw new Error('That is no valid token.')
  if (answer.status === 401) throw new Error("This page is signed out. Open the address that 'inhouse serve' prints.")
  if (!answer.ok) throw new Error((await answer.json()).error.message)
  return answer
}

function gone(error) {
  if (error.name === 'AbortError') throw error
  throw new Error("The owner process does not answer. Start it with 'inhouse serve', then ask again.")
}
