// Vercel's DeepSeek provider against wels serve.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createDeepSeek } from "@ai-sdk/deepseek";
import { generateText, jsonSchema, streamText, tool } from "ai";

const deepseek = createDeepSeek({ baseURL: process.env.WELS_URL, apiKey: "none" });

test("generateText", async () => {
  const r = await generateText({
    model: deepseek("deepseek-chat"), prompt: "one cat", maxOutputTokens: 12, temperature: 0, maxRetries: 0,
  });
  assert.equal(typeof r.text, "string");
  assert.ok(r.usage.outputTokens > 0);
  assert.ok(r.usage.inputTokens > 0);
});

test("streamText separates the reasoning", async () => {
  const r = streamText({
    model: deepseek("deepseek-reasoner"), prompt: "one cat", maxOutputTokens: 12, temperature: 0, maxRetries: 0,
  });
  const kinds = new Set();
  for await (const part of r.fullStream) {
    if (part.type === "error") throw part.error;
    kinds.add(part.type);
  }
  assert.ok(kinds.has("reasoning-delta"), [...kinds].join());
  assert.ok(kinds.has("finish"));
  assert.ok((await r.usage).outputTokens > 0);
});

test("tools are called", async () => {
  const r = await generateText({
    model: deepseek("deepseek-chat"),
    prompt: "one cat",
    maxOutputTokens: 200,
    temperature: 0,
    maxRetries: 0,
    toolChoice: "required",
    tools: {
      look: tool({
        description: "looks",
        inputSchema: jsonSchema({
          type: "object",
          properties: { deep: { type: "boolean" } },
          required: ["deep"],
          additionalProperties: false,
        }),
      }),
    },
  });
  assert.equal(r.finishReason, "tool-calls");
  assert.equal(typeof r.toolCalls[0].input.deep, "boolean");
});
