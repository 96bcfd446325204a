// What every foreign client does, for those that have the interface of browsers; `story.py` is the same for Python.

const BIG = 60000

function check(holds, what) {
  if (!holds) throw new Error(`expected ${what}`)
}

// One connection, whose messages are awaited one by one.
async function open(WebSocket, url) {
  const socket = new WebSocket(url)
  const waiting = []
  const came = []
  let ended = null
  const settle = () => {
    while (waiting.length && (came.length || ended)) {
      const { resolve, reject } = waiting.shift()
      if (came.length) resolve(JSON.parse(came.shift()))
      else reject(new Error(`ended: ${ended}`))
    }
  }
  socket.addEventListener("message", (event) => { came.push(event.data); settle() })
  const closed = new Promise((resolve) => socket.addEventListener("close", (event) => {
    ended = event.code
    settle()
    resolve(event.code)
  }))
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve)
    socket.addEventListener("error", (event) => reject(new Error(event.message || "could not connect")))
  })
  return {
    send: (message) => socket.send(JSON.stringify(message)),
    receive: async (type) => {
      const found = await new Promise((resolve, reject) => { waiting.push({ resolve, reject }); settle() })
      check(found.type === type, `${type}, got ${JSON.stringify(found)}`)
      return found
    },
    close: async () => { socket.close(1000); check(await closed === 1000, "a close with 1000") },
  }
}

async function greeted(WebSocket, url, room) {
  const client = await open(WebSocket, url)
  client.send({ type: "$hello", ref: "h", payload: { v: [1], pub: `secret of ${room}` } })
  const welcome = await client.receive("$welcome")
  check(welcome.ref === "h" && welcome.payload.durable === "fsync", "a $welcome that promises fsync")
  return client
}

// Echoes, joins, publishes and receives; is away while two more are published; reads on from where it was.
export async function story(WebSocket, url, room) {
  const publish = (client, n) =>
    client.send({ type: "note", room, ref: `p${n}`, mid: `m${n}`, payload: { n } })
  let client = await greeted(WebSocket, url, room)
  for (const text of ["é € \u{1f600}", "", "x".repeat(BIG)]) {
    client.send({ type: "echo", payload: { text } })
    check((await client.receive("echo")).payload.text === text, "an echo of the text")
  }
  client.send({ type: "$join", ref: "j", room })
  const joined = await client.receive("$joined")
  check(joined.ref === "j" && joined.payload.reason === "fresh", "a fresh join")
  await client.receive("$live")
  publish(client, 1)
  const first = await client.receive("note")
  check(first.room === room && first.off === 1 && first.payload.n === 1, "its message at offset 1")
  const ack = await client.receive("$ack")
  check(ack.ref === "p1" && ack.payload.off === 1 && !ack.payload.dup, "an $ack of offset 1")
  await client.close()

  client = await greeted(WebSocket, url, room)
  for (const [n, dup] of [[2, false], [3, false], [2, true]]) {
    publish(client, n)
    const { payload } = await client.receive("$ack")
    check(payload.off === n && payload.dup === dup, `an $ack of offset ${n}`)
  }
  await client.close()

  client = await greeted(WebSocket, url, room)
  client.send({ type: "$join", ref: "s", room, payload: { since: { ep: first.ep, off: first.off, id: first.id } } })
  const again = (await client.receive("$joined")).payload
  check(again.recovered && again.head === 3, "a join that recovers")
  for (const n of [2, 3]) {
    const message = await client.receive("note")
    check(message.off === n && message.payload.n === n, `the message at offset ${n}`)
  }
  await client.receive("$live")
  await client.close()
  return "told"
}
