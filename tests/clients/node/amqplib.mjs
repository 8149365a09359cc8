// amqplib, the oldest Node client: channels as event emitters, one conversation per function.

import amqp from "amqplib"
import { Inbox, largeBody, next, run } from "./run.mjs"

const text = (message) => message.content.toString()

// A channel whose error the conversation is about; amqplib rejects the call and emits the error as well.
async function refused(connection, attempt) {
  const channel = await connection.createChannel()
  const emitted = next(channel, "error")
  const closed = next(channel, "close")
  await Promise.resolve(attempt(channel)).catch(() => {})
  const error = await emitted
  await closed
  return { code: error.code, classId: error.classId, methodId: error.methodId, message: error.message }
}

await run({
  async hello(url, name) {
    const connection = await amqp.connect(url)
    const { product, capabilities } = connection.connection.serverProperties
    const channel = await connection.createChannel()
    const declared = await channel.assertQueue(name, { durable: false })
    channel.sendToQueue(name, Buffer.from("Hello World!"))
    const inbox = new Inbox()
    const { consumerTag } = await channel.consume(name, inbox.push, { noAck: true })
    const message = await inbox.take()
    await channel.cancel(consumerTag)
    const empty = await channel.get(name)
    await channel.close()
    await connection.close()
    const { deliveryTag, redelivered, exchange, routingKey } = message.fields
    const fields = { deliveryTag, redelivered, exchange, routingKey }
    return { product, capabilities, declared, text: text(message), fields, empty, generatedTag: consumerTag.slice(0, 9) }
  },

  async confirms(url, name) {
    const connection = await amqp.connect(url)
    const channel = await connection.createConfirmChannel()
    await channel.assertQueue(name, { maxLength: 3, overflow: "reject-publish" })
    for (let number = 0; number < 3; number++) channel.sendToQueue(name, Buffer.from(`${number}`), { persistent: true })
    await channel.waitForConfirms()
    const refusal = await new Promise((resolve) => channel.sendToQueue(name, Buffer.from("no"), {}, resolve))
    const { messageCount } = await channel.purgeQueue(name)
    await connection.close()
    return { refused: refusal.message, messageCount }
  },

  async workQueue(url, name) {
    const connection = await amqp.connect(url)
    const producer = await connection.createConfirmChannel()
    await producer.assertQueue(name, { durable: true })
    const workers = []
    for (const label of ["a", "b"]) {
      const channel = await connection.createChannel()
      await channel.prefetch(1)
      const inbox = new Inbox()
      await channel.consume(name, inbox.push, { consumerTag: label })
      workers.push({ channel, inbox })
    }
    for (let number = 0; number < 4; number++) producer.sendToQueue(name, Buffer.from(`${number}`))
    await producer.waitForConfirms()
    const [a, b] = workers
    const first = [await a.inbox.take(), await b.inbox.take()]
    b.channel.ack(first[1])
    const second = await b.inbox.take()
    b.channel.ack(second)
    const third = await b.inbox.take()
    b.channel.ack(third)
    const { messageCount, consumerCount } = await b.channel.checkQueue(name)
    a.channel.nack(first[0])
    const again = await Promise.race([a.inbox.take(), b.inbox.take()])
    await connection.close()
    return {
      first: first.map(text),
      rest: [second, third].map(text),
      messageCount,
      consumerCount,
      again: [text(again), again.fields.redelivered],
    }
  },

  async rpc(url, name) {
    const connection = await amqp.connect(url)
    const server = await connection.createChannel()
    await server.assertQueue(name, { durable: false })
    await server.consume(name, (request) => {
      const { replyTo, correlationId } = request.properties
      server.sendToQueue(replyTo, Buffer.from(`${Number(text(request)) ** 2}`), { correlationId })
      server.ack(request)
    })
    const client = await connection.createChannel()
    const inbox = new Inbox()
    const { queue } = await client.assertQueue("", { exclusive: true })
    await client.consume(queue, inbox.push, { noAck: true })
    await client.consume("amq.rabbitmq.reply-to", inbox.push, { noAck: true })
    client.sendToQueue(name, Buffer.from("7"), { replyTo: queue, correlationId: "queue" })
    const byQueue = await inbox.take()
    client.sendToQueue(name, Buffer.from("8"), { replyTo: "amq.rabbitmq.reply-to", correlationId: "direct" })
    const direct = await inbox.take()
    await connection.close()
    return [byQueue, direct].map((message) => [message.properties.correlationId, text(message)])
  },

  async topic(url, name, other) {
    const connection = await amqp.connect(url)
    const channel = await connection.createChannel()
    await channel.assertExchange(name, "topic", { durable: false })
    await channel.assertExchange(other, "fanout", { durable: false })
    await channel.bindExchange(other, name, "#.critical")
    const { queue } = await channel.assertQueue("", { exclusive: true })
    await channel.bindQueue(queue, name, "kern.*")
    await channel.bindQueue(queue, other, "")
    const inbox = new Inbox()
    await channel.consume(queue, inbox.push, { noAck: true })
    for (const key of ["kern.info", "cron.info", "cron.critical", "kern.critical", "kern.a.b"]) {
      channel.publish(name, key, Buffer.from(key))
    }
    const got = (await inbox.takeAll(3)).map(text)
    await channel.unbindQueue(queue, name, "kern.*")
    await channel.unbindExchange(other, name, "#.critical")
    channel.publish(name, "kern.critical", Buffer.from("unbound"))
    const { messageCount } = await channel.checkQueue(queue)
    await connection.close()
    return { got, messageCount, left: inbox.items.length }
  },

  async properties(url, name, copy) {
    const connection = await amqp.connect(url)
    const channel = await connection.createConfirmChannel()
    await channel.assertQueue(name)
    await channel.assertQueue(copy)
    const sent = {
      contentType: "application/json",
      contentEncoding: "utf-8",
      headers: {
        "grüße 世界 🐰": "ключ",
        flag: true,
        int: 7,
        wide: 2 ** 40,
        double: 1.5,
        nothing: null,
        list: [1, "two", { three: 3 }],
        when: { "!": "timestamp", value: 1_700_000_000 },
      },
      deliveryMode: 2,
      priority: 4,
      correlationId: "c1",
      replyTo: "answers",
      expiration: "60000",
      messageId: "m1",
      timestamp: 1_700_000_000,
      type: "kind",
      userId: "guest",
      appId: "amqplib tests",
    }
    channel.sendToQueue(name, Buffer.from("grüße"), { ...sent, CC: copy })
    await channel.waitForConfirms()
    const message = await channel.get(name, { noAck: true })
    const second = await channel.get(copy, { noAck: true })
    await connection.close()
    const { headers, ...rest } = message.properties
    const { CC, ...ours } = headers
    const keys = Object.keys(sent).filter((key) => key !== "headers")
    const lost = keys.filter((key) => sent[key] !== rest[key])
    const sameHeaders = JSON.stringify(ours) === JSON.stringify(sent.headers)
    return { text: text(message), CC, second: text(second), sentBy: second.fields.routingKey === name, lost, sameHeaders }
  },

  async returns(url, name) {
    const connection = await amqp.connect(url)
    const channel = await connection.createConfirmChannel()
    const order = []
    channel.on("return", (message) => order.push([message.fields.replyCode, message.fields.replyText, text(message)]))
    await new Promise((resolve, reject) =>
      channel.publish("", name, Buffer.from("lost"), { mandatory: true }, (error) =>
        error ? reject(error) : resolve(order.push("confirmed")),
      ),
    )
    await connection.close()
    return order
  },

  async errors(url, name, other) {
    const connection = await amqp.connect(url)
    const owner = await connection.createChannel()
    await owner.assertQueue(other, { durable: true })
    const found = {
      queue: await refused(connection, (channel) => channel.checkQueue(name)),
      exchange: await refused(connection, (channel) => channel.checkExchange(name)),
      publish: await refused(connection, (channel) => channel.publish(name, "", Buffer.from(""))),
      durable: await refused(connection, (channel) => channel.assertQueue(other, { durable: false })),
      ttl: await refused(connection, (channel) => channel.assertQueue(other, { durable: true, messageTtl: 5 })),
      tag: await refused(connection, (channel) => channel.ack({ fields: { deliveryTag: 9 } })),
    }
    await connection.close()
    return found
  },

  async hardError(url, name) {
    const connection = await amqp.connect(url)
    const failed = next(connection, "error")
    const closed = next(connection, "close")
    const channel = await connection.createChannel()
    channel.on("error", () => {})
    await channel.assertQueue(name)
    await channel.consume(name, () => {}, { consumerTag: "same" })
    channel.consume(name, () => {}, { consumerTag: "same" }).catch(() => {})
    const error = await failed
    await closed
    return { code: error.code, message: error.message }
  },

  async refusedLogin(url) {
    const wrong = new URL(url)
    wrong.password = "wrong"
    const nowhere = new URL(url)
    nowhere.pathname = "/nowhere"
    const failures = []
    for (const address of [wrong, nowhere]) {
      await amqp.connect(address.href).catch((error) => failures.push(error.message))
    }
    return failures
  },

  async large(url, name) {
    const connection = await amqp.connect(url)
    const channel = await connection.createConfirmChannel()
    await channel.assertQueue(name)
    const equal = []
    for (const size of [1 << 20, 10 << 20]) {
      const body = largeBody(size)
      channel.sendToQueue(name, body)
      await channel.waitForConfirms()
      equal.push((await channel.get(name, { noAck: true })).content.equals(body))
    }
    await connection.close()
    return equal
  },

  async cancelled(url, name) {
    const connection = await amqp.connect(url)
    const channel = await connection.createChannel()
    await channel.assertQueue(name)
    const inbox = new Inbox()
    await channel.consume(name, inbox.push)
    const other = await connection.createChannel()
    await other.deleteQueue(name)
    const notified = await inbox.take()
    const usable = await channel.assertQueue("", { exclusive: true })
    await connection.close()
    return { notified, usable: usable.messageCount }
  },

  async recovery(url, name) {
    const models = []
    const inbox = new Inbox()
    const connection = await amqp.connect(url, {
      recovery: {
        initialDelay: 20,
        setup: async (model) => {
          const channel = await model.createChannel()
          await channel.assertQueue(name)
          await channel.consume(name, inbox.push, { noAck: true })
          models.push(model)
        },
      },
    })
    connection.on("error", () => {})
    const lost = next(connection, "disconnect")
    const again = next(connection, "connect")
    models[0].connection.stream.destroy(new Error("cut"))
    await lost
    await again
    const channel = await connection.createChannel()
    channel.sendToQueue(name, Buffer.from("goes on"))
    const message = await inbox.take()
    await connection.close()
    return { text: text(message), connections: models.length }
  },

  async heartbeats(url, name, dead) {
    const connection = await amqp.connect(`${url}?heartbeat=1`)
    const channel = await connection.createChannel()
    await channel.assertQueue(dead)
    await channel.assertQueue(name, { deadLetterExchange: "", deadLetterRoutingKey: dead, messageTtl: 2100 })
    const inbox = new Inbox()
    await channel.consume(dead, inbox.push, { noAck: true })
    channel.sendToQueue(name, Buffer.from("late"))
    const message = await inbox.take()
    await connection.close()
    return message.properties.headers["x-first-death-reason"]
  },
})
