// @cloudamqp/amqp-client: promises per call, and a session that recovers; one conversation per function.

import { AMQPClient, AMQPSession } from "@cloudamqp/amqp-client"
import { Inbox, largeBody, run } from "./run.mjs"

async function connect(url) {
  const client = new AMQPClient(url)
  client.onerror = () => {}
  return await client.connect()
}

const reason = (attempt) => attempt.then(() => "accepted", (error) => error.message)

await run({
  async hello(url, name) {
    const connection = await connect(url)
    const channel = await connection.channel()
    const declared = await channel.queueDeclare(name, { durable: false })
    await channel.basicPublish("", name, "Hello World!", { contentType: "text/plain" })
    const inbox = new Inbox()
    const consumer = await channel.basicConsume(name, { noAck: true }, inbox.push)
    const message = await inbox.take()
    await consumer.cancel()
    const empty = await channel.basicGet(name)
    await connection.close()
    const { exchange, routingKey, deliveryTag, redelivered } = message
    const fields = { exchange, routingKey, deliveryTag, redelivered }
    return { declared, text: message.bodyString(), type: message.properties.contentType, fields, empty }
  },

  async confirms(url, name) {
    const connection = await connect(url)
    const channel = await connection.channel()
    await channel.confirmSelect()
    await channel.queueDeclare(name, {}, { "x-max-length": 3, "x-overflow": "reject-publish" })
    const tags = await Promise.all(["a", "b", "c"].map((body) => channel.basicPublish("", name, body, { deliveryMode: 2 })))
    const refused = await reason(channel.basicPublish("", name, "no"))
    const { messageCount } = await channel.queuePurge(name)
    await connection.close()
    return { tags, refused, messageCount }
  },

  async workQueue(url, name) {
    const connection = await connect(url)
    const channel = await connection.channel()
    await channel.queueDeclare(name)
    for (const body of ["a", "b", "c"]) await channel.basicPublish("", name, body)
    await channel.prefetch(1)
    const consumer = await channel.basicConsume(name, { noAck: false })
    const seen = []
    for await (const message of consumer.messages) {
      seen.push([message.bodyString(), message.redelivered])
      if (message.bodyString() === "b" && !message.redelivered) await message.nack(true)
      else await message.ack()
      if (seen.length === 4) break
    }
    await connection.close()
    return seen
  },

  async rpc(url, name) {
    const session = await AMQPSession.connect(url)
    await session.rpcServer(name, (message) => message.bodyString().toUpperCase())
    const once = await session.rpcCall(name, "one", { timeout: 5000 })
    const client = await session.rpcClient()
    const more = await Promise.all(["two", "three"].map((body) => client.call(name, body, { timeout: 5000 })))
    await client.close()
    await session.stop()
    return [once, ...more].map((message) => message.bodyString())
  },

  async topic(url, name, other) {
    const connection = await connect(url)
    const channel = await connection.channel()
    await channel.exchangeDeclare(name, "topic", { durable: false })
    await channel.exchangeDeclare(other, "headers", { durable: false })
    await channel.exchangeBind(other, name, "mail.#")
    const queue = await channel.queueDeclare("", { exclusive: true })
    await channel.queueBind(queue.name, name, "*.error")
    await channel.queueBind(queue.name, other, "", { "x-match": "all", level: 3 })
    const inbox = new Inbox()
    await channel.basicConsume(queue.name, { noAck: true }, inbox.push)
    for (const key of ["disk.error", "disk.info", "mail.in", "mail.error.again"]) {
      const level = key === "mail.in" ? 2 : 3
      await channel.basicPublish(name, key, key, { headers: { level } })
    }
    const got = (await inbox.takeAll(2)).map((message) => message.bodyString())
    await channel.queueUnbind(queue.name, name, "*.error")
    await channel.exchangeUnbind(other, name, "mail.#")
    await connection.close()
    return { got, generated: queue.name.startsWith("amq.gen-") }
  },

  async properties(url, name) {
    const connection = await connect(url)
    const channel = await connection.channel()
    await channel.queueDeclare(name)
    const sent = {
      contentType: "application/json",
      contentEncoding: "utf-8",
      headers: {
        "grüße 世界 🐰": "ключ",
        flag: false,
        int: -7,
        wide: 2 ** 40,
        double: 1.5,
        nothing: null,
        list: [1, "two", { three: 3 }],
        when: new Date(1_700_000_000_000),
      },
      deliveryMode: 2,
      priority: 4,
      correlationId: "c1",
      replyTo: "answers",
      expiration: "60000",
      messageId: "m1",
      timestamp: new Date(1_700_000_000_000),
      type: "kind",
      userId: "guest",
      appId: "amqp-client tests",
    }
    await channel.basicPublish("", name, "grüße", sent)
    const message = await channel.basicGet(name, { noAck: true })
    await connection.close()
    const plain = (value) => JSON.stringify(value, (_, item) => (typeof item === "bigint" ? Number(item) : item))
    return {
      text: message.bodyString(),
      lost: Object.keys(sent).filter((key) => plain(sent[key]) !== plain(message.properties[key])),
    }
  },

  async returns(url, name) {
    const connection = await connect(url)
    const channel = await connection.channel()
    await channel.confirmSelect()
    const order = []
    channel.onReturn = (message) => order.push([message.replyCode, message.replyText, message.bodyString()])
    const tag = await channel.basicPublish("", name, "lost", {}, true)
    order.push(["confirmed", tag])
    await connection.close()
    return order
  },

  async errors(url, name, other) {
    const connection = await connect(url)
    const owner = await connection.channel()
    await owner.queueDeclare(other, { durable: true })
    const attempts = {
      queue: (channel) => channel.queueDeclare(name, { passive: true }),
      exchange: (channel) => channel.exchangeDeclare(name, "direct", { passive: true }),
      get: (channel) => channel.basicGet(name),
      durable: (channel) => channel.queueDeclare(other, { durable: false }),
      length: (channel) => channel.queueDeclare(other, { durable: true }, { "x-max-length": 5 }),
      notEmpty: async (channel) => {
        await channel.basicPublish("", other, "something")
        await channel.queueDelete(other, { ifEmpty: true })
      },
    }
    const found = {}
    for (const [what, attempt] of Object.entries(attempts)) found[what] = await reason(attempt(await connection.channel()))
    await connection.close()
    return found
  },

  async hardError(url) {
    const connection = await connect(url)
    const channel = await connection.channel()
    const message = await reason(channel.basicQos(1, 1))
    return { message, closed: connection.closed }
  },

  async refusedLogin(url) {
    const wrong = new URL(url)
    wrong.password = "wrong"
    const nowhere = new URL(url)
    nowhere.pathname = "/nowhere"
    return [await reason(connect(wrong.href)), await reason(connect(nowhere.href))]
  },

  async transaction(url, name) {
    const connection = await connect(url)
    const channel = await connection.channel()
    await channel.queueDeclare(name)
    await channel.txSelect()
    await channel.basicPublish("", name, "back")
    await channel.txRollback()
    await channel.basicPublish("", name, "in")
    const before = (await channel.queueDeclare(name, { passive: true })).messageCount
    await channel.txCommit()
    const after = (await channel.queueDeclare(name, { passive: true })).messageCount
    await connection.close()
    return [before, after]
  },

  async large(url, name) {
    const connection = await connect(url)
    const channel = await connection.channel()
    await channel.confirmSelect()
    await channel.queueDeclare(name)
    const equal = []
    for (const size of [1 << 20, 10 << 20]) {
      const body = largeBody(size)
      await channel.basicPublish("", name, body)
      equal.push(body.equals((await channel.basicGet(name, { noAck: true })).body))
    }
    await connection.close()
    return equal
  },

  async cancelled(url, name) {
    const connection = await connect(url)
    const channel = await connection.channel()
    await channel.queueDeclare(name)
    const consumer = await channel.basicConsume(name, { tag: "watched" }, () => {})
    const waited = reason(consumer.wait())
    await (await connection.channel()).queueDelete(name)
    const said = await waited
    const usable = await channel.queueDeclare("", { exclusive: true })
    await connection.close()
    return { said, usable: usable.messageCount }
  },

  async session(url, name) {
    const states = []
    const back = new Inbox()
    const session = await AMQPSession.connect(url, {
      reconnectInterval: 20,
      onconnect: () => back.push(states.push("connected")),
      ondisconnect: () => states.push("disconnected"),
    })
    await back.take()
    const queue = await session.queue(name, { durable: true })
    const inbox = new Inbox()
    await queue.subscribe({ prefetch: 2 }, (message) => inbox.push(message.bodyString()))
    await queue.publish("before")
    const before = await inbox.take()
    session.client.socket.destroy()
    await back.take()
    await queue.publish("after")
    const after = await inbox.take()
    await session.stop()
    return { states, got: [before, after] }
  },
})
