// OpenAI's client against wels serve, as people use it for DeepSeek's API. WELS_URL: the server.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.WELS_URL, apiKey: "none", maxRetries: 0 });
const ask = (more = {}) => ({
  model: "deepseek-chat",
  messages: [{ role: "user", content: "one cat" }],
  max_tokens: 16,
  seed: 7,
  ...more,
});
const tool = (name) => ({
  type: "function",
  function: {
    name,
    description: "looks",
    parameters: {
      type: "object",
      properties: { deep: { type: "boolean" } },
      required: ["deep"],
      additionalProperties: false,
    },
  },
});

test("an answer and its stream are the same text", async () => {
  const whole = await client.chat.completions.create(ask());
  const choice = whole.choices[0];
  assert.equal(whole.object, "chat.completion");
  assert.ok(["stop", "length"].includes(choice.finish_reason));
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
  assert.equal(
    whole.usage.prompt_tokens,
    whole.usage.prompt_cache_hit_tokens + whole.usage.prompt_cache_miss_tokens,
  );
  assert.match(whole.id, /^[0-9a-f]{8}-[0-9a-f]{4}-4/);
  assert.match(whole.system_fingerprint, /^fp_/);
  let text = "", last;
  for await (const chunk of await client.chat.completions.create(ask({ stream: true }))) {
    text += chunk.choices[0]?.delta.content ?? "";
    last = chunk;
  }
  assert.equal(text, choice.message.content);
  assert.equal(last.usage.completion_tokens, whole.usage.completion_tokens);
});

test("include_usage has a chunk of its own", async () => {
  const stream = await client.chat.completions.create(
    ask({ stream: true, stream_options: { include_usage: true } }),
  );
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.ok(chunks.at(-1).usage.total_tokens > 0);
  assert.ok(chunks.slice(0, -1).every((c) => c.usage === null));
});

test("the reasoner's reasoning comes first and is counted", async () => {
  const stream = await client.chat.completions.create(
    ask({ model: "deepseek-reasoner", stream: true, thinking_budget: 5 }),
  );
  let reasoning = "", order = "", last;
  for await (const chunk of stream) {
    const delta = chunk.choices[0].delta;
    if (delta.reasoning_content) order += "r";
    if (delta.content) order += "c";
    reasoning += delta.reasoning_content ?? "";
    last = chunk;
  }
  assert.ok(reasoning.length > 0);
  assert.match(order, /^r+c*$/);
  assert.ok(last.usage.completion_tokens_details.reasoning_tokens > 0);
});

test("a required tool is called, and its result is taken back", async () => {
  const first = ask({ tools: [tool("look"), tool("stare")], tool_choice: "required", max_tokens: 200 });
  const message = (await client.chat.completions.create(first)).choices[0].message;
  const call = message.tool_calls[0];
  assert.match(call.id, /^call_00_[A-Za-z0-9]{24}$/);
  assert.equal(typeof JSON.parse(call.function.arguments).deep, "boolean");
  const second = await client.chat.completions.create({
    ...ask({ tools: first.tools }),
    messages: [...first.messages, message, { role: "tool", tool_call_id: call.id, content: "seen" }],
  });
  assert.ok(second.usage.prompt_tokens > 0);
  const runner = client.chat.completions.stream({ ...first, tool_choice: { type: "function", function: { name: "stare" } } });
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].message.tool_calls[0].function.name, "stare");
  assert.equal(final.choices[0].finish_reason, "tool_calls");
});

test("an answer keeps to a schema", async () => {
  const r = await client.chat.completions.create(
    ask({
      max_tokens: 100,
      response_format: {
        type: "json_schema",
        json_schema: {
          name: "pet",
          schema: {
            type: "object",
            properties: { kind: { enum: ["cat", "dog"] } },
            required: ["kind"],
            additionalProperties: false,
          },
        },
      },
    }),
  );
  assert.ok(["cat", "dog"].includes(JSON.parse(r.choices[0].message.content).kind));
});

test("n, stop, logprobs and logit_bias", async () => {
  const r = await client.chat.completions.create(ask({ n: 2, logprobs: true, top_logprobs: 2, logit_bias: { 1: -100 } }));
  assert.equal(r.choices.length, 2);
  const tokens = r.choices[0].logprobs.content;
  assert.equal(tokens[0].top_logprobs.length, 2);
  const text = r.choices[0].message.content;
  const stop = text.slice(3, 5);
  const s = await client.chat.completions.create(ask({ stop: [stop], logit_bias: { 1: -100 } }));
  assert.equal(s.choices[0].message.content, text.slice(0, text.indexOf(stop)));
});

test("errors have DeepSeek's statuses and texts", async () => {
  await assert.rejects(client.chat.completions.create(ask({ model: "gpt-4" })), (e) => {
    assert.equal(e.status, 400);
    assert.match(e.message, /The supported API model names are/);
    return true;
  });
  await assert.rejects(client.chat.completions.create(ask({ temperature: 3 })), { status: 400 });
  await assert.rejects(client.chat.completions.create(ask({ response_format: { type: "json_object" } })), {
    status: 400,
  });
});

test("completions, models, embeddings and responses", async () => {
  const c = await client.completions.create({ model: "deepseek-chat", prompt: "one cat", max_tokens: 4, echo: true });
  assert.ok(c.choices[0].text.startsWith("one cat"));
  const names = [];
  for await (const m of client.models.list()) names.push(m.id);
  assert.ok(names.includes("deepseek-chat") && names.includes("deepseek-reasoner"));
  const e = await client.embeddings.create({ model: "deepseek-chat", input: ["one cat", "two cats"] });
  const square = e.data[0].embedding.reduce((a, v) => a + v * v, 0);
  assert.ok(Math.abs(square - 1) < 1e-3);
  const r = await client.responses.create({ model: "deepseek-chat", input: "one cat", max_output_tokens: 8 });
  assert.equal(r.object, "response");
  assert.equal(typeof r.output_text, "string");
  let done;
  for await (const event of await client.responses.create({
    model: "deepseek-reasoner", input: "one cat", max_output_tokens: 8, temperature: 0, stream: true,
  })) {
    if (event.type.startsWith("response.comp") || event.type === "response.incomplete") done = event;
  }
  assert.ok(done.response.usage.output_tokens > 0);
});

test("a stream that is broken off frees the server", async () => {
  const stream = await client.chat.completions.create(ask({ stream: true, max_tokens: 200 }));
  for await (const chunk of stream) {
    assert.ok(chunk);
    stream.controller.abort();
    break;
  }
  assert.ok((await client.chat.completions.create(ask())).choices.length);
});
