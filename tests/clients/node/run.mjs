// Runs one conversation by its name and prints what came of it as JSON: node FILE URL CONVERSATION NAME [NAME...].
// The names are fresh ones for queues and exchanges. Exit code 1 and the stack on stderr when it failed or hung.

const DEADLINE_MS = 10_000

export async function run(conversations) {
  const [url, conversation, ...names] = process.argv.slice(2)
  setTimeout(() => fail(new Error(`${conversation} not done within ${DEADLINE_MS} ms`)), DEADLINE_MS)
  try {
    const said = await conversations[conversation](url, ...names)
    process.stdout.write(JSON.stringify(said), () => process.exit(0))
  } catch (error) {
    fail(error)
  }
}

function fail(error) {
  process.stderr.write(`${error?.stack ?? error}\n`, () => process.exit(1))
}

// A promise of an event emitter's next event, with its first argument.
export function next(emitter, event) {
  return new Promise((resolve) => emitter.once(event, resolve))
}

// Items pushed from callbacks, awaited one at a time.
export class Inbox {
  items = []
  waiting = []

  push = (item) => {
    const wake = this.waiting.shift()
    if (wake) wake(item)
    else this.items.push(item)
  }

  take() {
    if (this.items.length > 0) return Promise.resolve(this.items.shift())
    return new Promise((resolve) => this.waiting.push(resolve))
  }

  async takeAll(count) {
    const taken = []
    while (taken.length < count) taken.push(await this.take())
    return taken
  }
}

// `size` bytes without a short period, so that a lost or repeated frame shows.
export function largeBody(size) {
  const body = Buffer.alloc(size)
  for (let at = 0; at < size; at += 4) body.writeUInt32BE(at, at)
  return body
}
