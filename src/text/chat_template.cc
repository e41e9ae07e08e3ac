// find_chat_template: which of our renderers a model's Jinja program is. The programs differ
// between releases in what they are called and how they are spaced, so they are known by the marks
// that change what a conversation becomes.
#include "base/error.h"
#include "base/log.h"
#include "text/chat.h"
#include "text/vocab_source.h"

namespace wels {
namespace {

// Renders every vector of deepseek-v3.1 in the fixtures as text/chat.cc does (checked with Jinja2
// 3.1.6, 2026-11-28).
constexpr const char* kJinja = R"jinja({%- set thinks = thinking is defined and thinking -%}
{%- set ns = namespace(system='', first=true, is_last_user=false, in_tool=false) -%}
{%- for m in messages if m['role'] == 'system' -%}
{%- set ns.system = m['content'] if ns.first else ns.system + '\n\n' + m['content'] -%}
{%- set ns.first = false -%}
{%- endfor -%}
{{- '<｜begin▁of▁sentence｜>' + ns.system -}}
{%- for m in messages -%}
{%- if m['role'] == 'user' -%}
{%- set ns.in_tool = false -%}
{%- set ns.is_last_user = true -%}
{{- '<｜User｜>' + m['content'] -}}
{%- elif m['role'] == 'assistant' -%}
{%- set calls = m['tool_calls'] if m['tool_calls'] is defined and m['tool_calls'] else [] -%}
{%- if ns.is_last_user -%}
{{- '<｜Assistant｜><think>' -}}
{%- if calls or not (m['prefix'] is defined and m['prefix'] and thinks) -%}
{{- '</think>' -}}
{%- endif -%}
{%- endif -%}
{%- set ns.is_last_user = false -%}
{%- if calls -%}
{%- if m['content'] -%}
{{- m['content'] -}}
{%- endif -%}
{{- '<｜tool▁calls▁begin｜>' -}}
{%- for call in calls -%}
{%- set f = call['function'] -%}
{{- '<｜tool▁call▁begin｜>' + f['name'] + '<｜tool▁sep｜>' -}}
{{- f['arguments'] if f['arguments'] is string else f['arguments'] | tojson -}}
{{- '<｜tool▁call▁end｜>' -}}
{%- endfor -%}
{{- '<｜tool▁calls▁end｜>' -}}
{%- elif ns.in_tool or '</think>' not in m['content'] -%}
{{- m['content'] -}}
{%- else -%}
{{- m['content'].split('</think>', 1)[1] -}}
{%- endif -%}
{%- set ns.in_tool = false -%}
{{- '<｜end▁of▁sentence｜>' -}}
{%- elif m['role'] == 'tool' -%}
{%- set ns.is_last_user = false -%}
{%- set ns.in_tool = true -%}
{{- '<｜tool▁output▁begin｜>' + m['content'] + '<｜tool▁output▁end｜>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and ns.is_last_user -%}
{{- '<｜Assistant｜><think>' if thinks else '<｜Assistant｜><think></think>' -}}
{%- endif -%})jinja";

}  // namespace

std::string chat_template_jinja() { return kJinja; }

std::optional<ChatTemplate> find_chat_template(const std::string& path) {
  std::string jinja = load_chat_template(path);
  if (jinja.empty()) return std::nullopt;
  auto has = [&](std::string_view mark) { return jinja.find(mark) != std::string::npos; };
  if (has("'User: '") && has("'Assistant: ' + message['content'] + eos_token"))
    return ChatTemplate::kDeepSeekV2;
  // ｜DSML｜: V3.2 and later, whose turns look alike and whose tool calls do not.
  if (!has("<｜User｜>") || !has("<｜Assistant｜>") || has("｜DSML｜")) {
    throw Error(path, "the chat template is none that wels knows",
                "name the one to use: --template, \"none\" to continue the text");
  }
  if (has("flush_tool_outputs")) return ChatTemplate::kLlamaCppR1;
  if (has("is_last_user") && has("<｜Assistant｜><think></think>"))
    return ChatTemplate::kDeepSeekV31;
  if (has("is_last_user") && (has("<｜Assistant｜></think>") || has("{{'</think>'}}")))
    return ChatTemplate::kDeepSeekV31Release;
  if (has("is_last_user") && !has("<｜Assistant｜><think>")) return ChatTemplate::kDeepSeekR1_0528;
  // One program that grew: of what it became, the calls show most.
  bool thinks = has("<｜Assistant｜><think>"), strips = has("</think>");
  if (thinks && has("enable_thinking")) return ChatTemplate::kDeepSeekR1Qwen;
  if (thinks && has("and message['tool_calls']")) return ChatTemplate::kDeepSeekR1QwenThinks;
  if (!thinks && strips && has("is_first_sp")) return ChatTemplate::kDeepSeekV3_0324;
  if (!has("message['content'] is none"))
    log_warn(
        "{}: the chat template's turns are known, its tool calls may not be; --template names "
        "the one to use",
        path);
  return thinks   ? ChatTemplate::kDeepSeekR1
         : strips ? ChatTemplate::kDeepSeekR1First
                  : ChatTemplate::kDeepSeekV3;
}

}  // namespace wels
