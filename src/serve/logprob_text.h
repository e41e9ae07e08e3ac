// Log-probabilities as OpenAI's and DeepSeek's chat API writes them.
#pragma once
#include <fmt/format.h>

#include <string>
#include <vector>

#include "serve/generation.h"
#include "serve/json_text.h"
#include "text/unicode.h"

namespace wels {

// -9999 stands for impossible, as JSON has no infinity.
inline std::string logp_json(double logp) {
  return fmt::format("{:.6g}", logp > -9999 ? logp : -9999.0);
}

inline void append_logprob(std::string& out, std::string_view bytes, double logp) {
  out += "{\"token\":";
  append_json_string(out, utf8_lossy(bytes));
  out += ",\"logprob\":" + logp_json(logp) + ",\"bytes\":[";
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0) out += ',';
    out += std::to_string(static_cast<unsigned char>(bytes[i]));
  }
  out += ']';
}

// [{"token", "logprob", "bytes", "top_logprobs": [...]}, ...]
inline void append_logprobs(std::string& out, const std::vector<TokenLogprob>& tokens) {
  out += '[';
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out += ',';
    append_logprob(out, tokens[i].bytes, tokens[i].logp);
    out += ",\"top_logprobs\":[";
    for (size_t k = 0; k < tokens[i].top.size(); ++k) {
      if (k > 0) out += ',';
      append_logprob(out, tokens[i].top[k].bytes, tokens[i].top[k].logp);
      out += '}';
    }
    out += "]}";
  }
  out += ']';
}

}  // namespace wels
