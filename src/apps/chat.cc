// wels chat: a conversation in the terminal, in DeepSeek's chat format. Base models (no chat
// training) continue the conversation as text; that is said once.
#include <fmt/format.h>

#include <cstdio>
#include <iostream>

#include "apps/commands.h"
#include "apps/loaded_model.h"
#include "apps/sampling_flags.h"
#include "apps/stream_printer.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/signal.h"
#include "engine/generator.h"

namespace wels {
namespace {

struct ChatFlags {
  DeviceFlags device;
  std::string model, dtype = "auto";
  int64_t max_tokens = 512, context = 4096;
  SamplingParams sampling;
  bool verbose = false;
};

constexpr const char* kHelp =
    "  /clear            forget the conversation\n"
    "  /set NAME VALUE   temperature, top_k, top_p, min_p, seed, max_tokens\n"
    "  /bye              leave (or Ctrl-D); Ctrl-C stops an answer; \"\"\" begins and ends several "
    "lines\n";

// One message, over several lines between """ and """. False at the end of the input.
bool read_message(std::string& out) {
  fmt::print(">>> ");
  std::fflush(stdout);
  if (!std::getline(std::cin, out)) return false;
  if (!out.starts_with("\"\"\"")) return true;
  out.erase(0, 3);
  std::string line;
  while (out.find("\"\"\"") == std::string::npos && std::getline(std::cin, line))
    out += "\n" + line;
  if (size_t end = out.find("\"\"\""); end != std::string::npos) out.erase(end);
  return true;
}

void set_parameter(ChatFlags& f, const std::string& name, const std::string& value) {
  SamplingParams& p = f.sampling;
  try {
    if (name == "temperature")
      p.temperature = std::stod(value);
    else if (name == "top_k")
      p.top_k = std::stoi(value);
    else if (name == "top_p")
      p.top_p = std::stod(value);
    else if (name == "min_p")
      p.min_p = std::stod(value);
    else if (name == "seed")
      p.seed = std::stoull(value);
    else if (name == "max_tokens")
      f.max_tokens = std::stoll(value);
    else
      throw Error("/set", "knows no parameter \"" + name + "\"", "see /?");
    p.validate();
  } catch (const std::logic_error&) {
    throw Error("/set", "\"" + value + "\" is no number");
  }
}

// The conversation as tokens. DeepSeek's format where the tokenizer has its tokens, else plain
// turns.
class Conversation {
 public:
  explicit Conversation(const Tokenizer& t)
      : t_(t), user_(t.find("<｜User｜>")), assistant_(t.find("<｜Assistant｜>")) {
    clear();
  }
  void clear() {
    ids_.clear();
    if (t_.bos()) ids_.push_back(*t_.bos());
  }
  void ask(const std::string& text) {
    if (user_ && assistant_) {
      ids_.push_back(*user_);
      t_.encode(text, AddedTokens::kAsText, ids_);
      ids_.push_back(*assistant_);
    } else {
      t_.encode("\n" + text + "\n", AddedTokens::kAsText, ids_);
    }
  }
  void answer(const std::vector<int32_t>& ids) {
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    if (user_ && t_.eos()) ids_.push_back(*t_.eos());
  }
  const std::vector<int32_t>& ids() const { return ids_; }
  std::vector<int32_t> stops() const {
    std::vector<int32_t> out;
    for (const auto& id : {t_.eos(), user_}) {
      if (id) out.push_back(*id);
    }
    return out;
  }

 private:
  const Tokenizer& t_;
  std::optional<int32_t> user_, assistant_;
  std::vector<int32_t> ids_;
};

void command(ChatFlags& f, Conversation& c, const std::string& line) {
  if (line == "/clear") {
    c.clear();
  } else if (line.starts_with("/set ")) {
    size_t space = line.find(' ', 5);
    if (space == std::string::npos) throw Error("/set", "needs a name and a value", "see /?");
    set_parameter(f, line.substr(5, space - 5), line.substr(space + 1));
  } else {
    fmt::print("{}", kHelp);
  }
}

int chat(ChatFlags f) {
  f.device.apply();
  f.sampling.validate();
  LoadedModel m = open_model(f.model, f.device.device, f.dtype);
  if (!m.tokenizer)
    throw Error(m.folder, "has no tokenizer.json",
                "copy the model's tokenizer.json into the folder");
  Conversation talk(*m.tokenizer);
  std::string line;
  fmt::print("{} (/? for help)\n", m.folder);
  while (read_message(line) && line != "/bye") {
    if (line.empty()) continue;
    try {
      if (line[0] == '/') {
        command(f, talk, line);
        continue;
      }
      talk.ask(line);
      StopSignal stop;
      StreamPrinter printer(*m.tokenizer, {});
      std::vector<GenerateRequest> requests(1);
      GenerateRequest& r = requests[0];
      r.prompt = talk.ids();
      r.max_new_tokens = f.max_tokens;
      r.sampling = f.sampling;
      r.stop_ids = talk.stops();
      r.on_token = [&](int32_t id) { return printer.push(id) && !stop.requested(); };
      int64_t need = static_cast<int64_t>(r.prompt.size()) + f.max_tokens + 1;
      Generator generator(*m.dev, *m.model, m.dtype, std::max(f.context, need));
      GenerateTiming t;
      std::vector<GenerateResult> results = generator.run(requests, &t);
      printer.finish();
      talk.answer(results[0].tokens);
      fmt::print("\n");
      if (f.verbose) {
        fmt::print(stderr, "prompt {} tokens in {}, answer {} tokens in {}\n", t.prompt_tokens,
                   human_duration(t.prefill_s), t.new_tokens, human_duration(t.decode_s));
      }
    } catch (
        const Error& e) {  // a bad command or a full context ends the turn, not the conversation
      fmt::print("error: {}\n", e.what());
    }
  }
  fmt::print("\n");
  return 0;
}

}  // namespace

void add_chat(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("chat", "talk to a model");
  auto f = std::make_shared<ChatFlags>();
  sub->add_option("model", f->model, "model folder, run folder or GGUF file")->required();
  sub->add_option("-n,--max-tokens", f->max_tokens, "tokens of an answer at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--context", f->context, "tokens of the KV cache")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--dtype", f->dtype, "auto, bf16 or f32")
      ->check(CLI::IsMember({"auto", "bf16", "f32"}))
      ->capture_default_str();
  sub->add_flag("--verbose", f->verbose, "print counts and times");
  add_sampling_flags(sub, f->sampling);
  f->device.add(sub);
  sub->callback([f, &run] { run = [f] { return chat(*f); }; });
}

}  // namespace wels
