// /completions: object text_completion, with echo and log-probabilities of the prompt as evaluation
// harnesses read them.
#include <fmt/format.h>

#include <algorithm>

#include "serve/api_error.h"
#include "serve/json_text.h"
#include "serve/logprob_text.h"
#include "serve/response_writer.h"

namespace wels {
namespace {

// Characters that begin in these bytes: a token may end within one.
size_t characters(std::string_view utf8) {
  return static_cast<size_t>(std::count_if(utf8.begin(), utf8.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}; `unknown` tokens at the beginning
// have no log-probability.
class LogprobLists {
 public:
  // offset: characters of text before it.
  explicit LogprobLists(size_t offset = 0) : offset_(offset) {}
  size_t offset() const { return offset_; }
  void add(const std::vector<TokenLogprob>& tokens, size_t unknown) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const TokenLogprob& t = tokens[i];
      const char* comma = count_++ > 0 ? "," : "";
      std::string text = utf8_lossy(t.bytes);
      tokens_ += comma + json_string(text);
      offsets_ += comma + std::to_string(offset_);
      if (t.shown) offset_ += characters(t.bytes);
      if (i < unknown) {
        logprobs_ += std::string(comma) + "null";
        top_ += std::string(comma) + "null";
        continue;
      }
      logprobs_ += comma + logp_json(t.logp);
      top_ += std::string(comma) + '{';
      for (size_t k = 0; k < t.top.size(); ++k) {
        top_ += (k > 0 ? "," : "") + json_string(utf8_lossy(t.top[k].bytes)) + ':' +
                logp_json(t.top[k].logp);
      }
      top_ += '}';
    }
  }
  std::string json() const {
    return "{\"tokens\":[" + tokens_ + "],\"token_logprobs\":[" + logprobs_ +
           "],\"top_logprobs\":[" + top_ + "],\"text_offset\":[" + offsets_ + "]}";
  }

 private:
  std::string tokens_, logprobs_, top_, offsets_;
  size_t count_ = 0, offset_;
};

std::string head(const ResponseInfo& info) {
  return fmt::format(
      R"({{"id":{},"object":"text_completion","created":{},"model":{},"system_fingerprint":{},)"
      R"("choices":[)",
      json_string(info.id), info.created, json_string(info.model), json_string(info.fingerprint));
}

class CompletionWriter : public EventWriter {
 public:
  CompletionWriter(const ResponseInfo& info, bool include_usage, std::vector<std::string> echoes)
      : head_("data: " + head(info)), include_usage_(include_usage), echoes_(std::move(echoes)) {
    for (const std::string& e : echoes_) offsets_.push_back(characters(e));
  }

  void begin(std::string& out) override {
    for (size_t i = 0; i < echoes_.size(); ++i) chunk(i, echoes_[i], "null", "null", out);
  }

  void write(const std::vector<Delta>& deltas, std::string& out) override {
    for (const Delta& d : deltas) {
      size_t choice = static_cast<size_t>(d.choice);
      if (d.kind == Delta::kContent) {
        if (offsets_.size() <= choice) offsets_.resize(choice + 1);
        LogprobLists part(offsets_[choice]);
        part.add(d.logprobs, 0);
        offsets_[choice] = part.offset();
        chunk(choice, d.text, d.logprobs.empty() ? "null" : part.json(), "null", out);
      } else if (d.kind == Delta::kFinish) {
        flush_finish("", out);
        finish_ = {choice, fmt::format("\"{}\"", finish_name(d.finish))};
      }
    }
  }

  void end(const Usage& usage, const std::optional<Error>& error, std::string& out) override {
    if (error) {
      out += "data: " + generation_error(*error).response().body + "\n\n";
      return;
    }
    std::string json = ",\"usage\":" + usage_json(usage);
    flush_finish(include_usage_ ? "" : json, out);
    if (include_usage_) out += head_ + "]" + json + "}\n\n";
    out += "data: [DONE]\n\n";
  }

 private:
  void chunk(size_t choice, std::string_view text, std::string_view logprobs,
             std::string_view finish, std::string& out, std::string_view usage = "") {
    out += head_;
    fmt::format_to(std::back_inserter(out), R"({{"index":{},"text":)", choice);
    append_json_string(out, text);
    out += ",\"logprobs\":";
    out += logprobs;
    out += ",\"finish_reason\":";
    out += finish;
    out += "}]";
    out += usage.empty() && include_usage_ ? ",\"usage\":null" : usage;
    out += "}\n\n";
  }
  void flush_finish(std::string_view usage, std::string& out) {
    if (!finish_) return;
    auto [choice, reason] = *std::exchange(finish_, std::nullopt);
    chunk(choice, "", "null", reason, out, usage);
  }

  std::string head_;
  bool include_usage_;
  std::vector<std::string> echoes_;
  std::vector<size_t> offsets_;  // characters sent, by choice
  std::optional<std::pair<size_t, std::string>> finish_;
};

}  // namespace

std::string completion_response(const ResponseInfo& info, const std::vector<Answer>& answers,
                                const std::vector<Echo>& echoes, const Usage& usage,
                                bool logprobs) {
  std::string out = head(info);
  for (size_t i = 0; i < answers.size(); ++i) {
    const Answer& a = answers[i];
    LogprobLists lists;
    if (!echoes.empty()) lists.add(echoes[i].tokens, 1);
    lists.add(a.content_logprobs, 0);
    fmt::format_to(
        std::back_inserter(out), R"({}{{"text":{},"index":{},"logprobs":{},"finish_reason":"{}"}})",
        i > 0 ? "," : "", json_string((echoes.empty() ? "" : echoes[i].text) + a.content), i,
        logprobs ? lists.json() : "null", finish_name(a.finish));
  }
  return out + "],\"usage\":" + usage_json(usage) + "}";
}

std::unique_ptr<EventWriter> make_completion_writer(ResponseInfo info, bool include_usage,
                                                    std::vector<std::string> echoes) {
  return std::make_unique<CompletionWriter>(info, include_usage, std::move(echoes));
}

}  // namespace wels
