// Anthropic's client against wels serve.
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.env.WELS_URL + "/anthropic", apiKey: "none", maxRetries: 0 });
const ask = (more = {}) => ({
  model: "claude-any",
  max_tokens: 12,
  temperature: 0,  // the same answer at every run
  messages: [{ role: "user", content: "one cat" }],
  ...more,
});

test("a message and its stream", async () => {
  const m = await client.messages.create(ask());
  assert.equal(m.type, "message");
  assert.ok(["end_turn", "max_tokens"].includes(m.stop_reason));
  assert.ok(m.usage.output_tokens > 0);
  const stream = client.messages.stream(ask({ thinking: { type: "enabled", budget_tokens: 1024 }, max_tokens: 1100 }));
  let thinking = "";
  stream.on("thinking", (delta) => (thinking += delta));
  const final = await stream.finalMessage();
  assert.ok(thinking.length > 0);
  assert.equal(final.content[0].type, "thinking");
});

test("a tool is used", async () => {
  const final = await client.messages
    .stream(
      ask({
        max_tokens: 200,
        tools: [
          {
            name: "look",
            input_schema: {
              type: "object",
              properties: { deep: { type: "boolean" } },
              required: ["deep"],
              additionalProperties: false,
            },
          },
        ],
        tool_choice: { type: "tool", name: "look" },
      }),
    )
    .finalMessage();
  assert.equal(final.stop_reason, "tool_use");
  assert.equal(typeof final.content.at(-1).input.deep, "boolean");
  const next = await client.messages.create(
    ask({
      messages: [
        { role: "user", content: "one cat" },
        { role: "assistant", content: final.content },
        { role: "user", content: [{ type: "tool_result", tool_use_id: final.content.at(-1).id, content: "seen" }] },
      ],
    }),
  );
  assert.ok(next.usage.output_tokens > 0);
});

test("tokens are counted, errors are typed", async () => {
  const { input_tokens } = await client.messages.countTokens({
    model: "claude-any", messages: [{ role: "user", content: "one cat" }],
  });
  assert.ok(input_tokens > 0);
  await assert.rejects(client.messages.create(ask({ temperature: 9 })), (e) => {
    assert.equal(e.status, 400);
    assert.equal(e.error.error.type, "invalid_request_error");
    return true;
  });
});
