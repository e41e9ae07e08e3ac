#include "apps/recipe_texts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/loaded_model.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/signal.h"
#include "data/corpus.h"
#include "data/json_lines.h"
#include "data/text_parts.h"
#include "engine/engine.h"
#include "formats/gguf_checkpoint.h"
#include "formats/hf_config.h"
#include "formats/json.h"
#include "text/gguf_vocab.h"
#include "text/unicode.h"

namespace wels {
namespace {

constexpr uint64_t kReplayStream = hash_name("replay");
constexpr int64_t kBlock = 32;         // samples of a file
constexpr int64_t kHeldOutEvery = 10;  // of a model's own samples
constexpr int64_t kLeastBytesOfBlock = 64;

// Which tokens a model reads, and how many at once.
struct ModelReader {
  Tokenizer tokenizer;
  int64_t longest;
};

ModelReader reader_of(const std::string& model) {
  if (std::filesystem::is_regular_file(model)) {
    GgufCheckpoint file(model);
    return {Tokenizer(parse_gguf_vocab(file.content())), file.config().max_position_embeddings};
  }
  std::string folder = resolve_checkpoint(model);
  if (!std::filesystem::exists(folder + "/tokenizer.json"))
    throw Error(folder, "has no tokenizer.json", "copy the model's tokenizer.json into the folder");
  return {Tokenizer::load(folder), load_hf_config(folder).max_position_embeddings};
}

// Tokens of text in an example: beside the beginning and the end of a sentence.
int64_t room_of(const DocumentsFlags& f, int64_t longest) {
  int64_t seq = f.seq > 0 ? f.seq : std::min<int64_t>(1024, longest);
  if (seq < 8 || seq > longest)
    throw Error("seq",
                fmt::format("{} is not between 8 and the model's {} positions", seq, longest),
                "use a shorter one");
  return seq - 2;
}

std::string data_file(const std::string& folder) { return folder + "/answers/texts.jsonl"; }

void write_parts(const std::string& folder, const HeldOutParts& parts, TextsReport& r) {
  make_folder(folder + "/answers");
  write_file_atomic(folder + "/" + kHeldOutFile, json_lines_of(parts.held_out));
  write_file_atomic(data_file(folder), json_lines_of(parts.train));
  r.parts = static_cast<int64_t>(parts.train.size());
  r.bytes = bytes_of(parts.train);
  r.held_out_bytes = bytes_of(parts.held_out);
}

std::string names_of(const std::vector<std::string>& data) {
  return data.size() == 1 ? data[0] : fmt::format("{} and {} more", data[0], data.size() - 1);
}

int64_t text_bytes(const std::vector<std::string>& data) {
  int64_t n = 0;
  read_json_lines(list_json_lines(data), [&](std::string_view line, const std::string& where) {
    n += static_cast<int64_t>(json_line_text(line, where).size());
    return true;
  });
  return n;
}

// --- a model's own texts ---

class OwnTexts {
 public:
  OwnTexts(const ReplayFlags& f, const std::string& model, const std::string& folder, int64_t room,
           const DeviceFlags& device)
      : f_(f), folder_(folder), room_(room), m_(open_model(model, device.device, "auto")) {
    begin_ = m_.tokenizer->encode_document("");
    if (begin_.empty() || !m_.tokenizer->eos())
      throw Error(m_.folder, "has no token that begins or ends a text: it cannot write any",
                  "give a corpus to repeat: --replay CORPUS");
    engine_.emplace(*m_.dev, *m_.model, m_.dtype, room + 2, kBlock * (room + 2));
  }

  // Block b: 32 texts, one of ten of them held out. From its files where they are there.
  HeldOutParts block(int64_t b, TextsReport& r) {
    std::string held = fmt::format("{}/blocks/held_out-{:06}.jsonl", folder_, b);
    std::string path = fmt::format("{}/blocks/train-{:06}.jsonl", folder_, b);
    std::string costs = fmt::format("{}/blocks/costs-{:06}.json", folder_, b);
    HeldOutParts out;
    if (!std::filesystem::exists(path)) {
      BlockCosts c;
      out = sample(b, c);
      write_file_atomic(costs, nlohmann::json{{"tokens", c.tokens}, {"ms", c.ms}}.dump() + "\n");
      write_file_atomic(held, json_lines_of(out.held_out));
      write_file_atomic(path, json_lines_of(out.train));
      add(c, r);
      return out;
    }
    if (std::filesystem::exists(costs)) add(read_costs(costs), r);  // older runs don't say
    auto read = [](const std::string& from, std::vector<TextPart>& to) {
      if (std::filesystem::file_size(from) == 0) return;
      read_json_lines({from}, [&](std::string_view line, const std::string& where) {
        to.push_back({json_line_text(line, where), true, 0, 0});
        return true;
      });
    };
    read(held, out.held_out);
    read(path, out.train);
    return out;
  }

 private:
  struct BlockCosts {
    int64_t tokens = 0, ms = 0;
  };
  static void add(const BlockCosts& c, TextsReport& r) {
    r.sampled_tokens += c.tokens;
    r.seconds += static_cast<double>(c.ms) / 1e3;
  }
  static BlockCosts read_costs(const std::string& path) {
    nlohmann::json j = parse_json(read_file(path), path);
    try {
      return {j.at("tokens").get<int64_t>(), j.at("ms").get<int64_t>()};
    } catch (const nlohmann::json::exception&) {
      throw Error(path, "does not say what its block took", "remove the block's files");
    }
  }

  HeldOutParts sample(int64_t b, BlockCosts& costs) {
    double t0 = monotonic_seconds();
    std::vector<GenerateRequest> requests;
    for (int64_t i = 0; i < kBlock; ++i) {
      GenerateRequest q;
      q.prompt = begin_;
      q.max_new_tokens = room_;
      q.sampling.temperature = f_.temperature;
      q.sampling.top_p = 1;
      auto place = static_cast<uint64_t>(b * kBlock + i);
      q.sampling.seed = Rng(f_.texts.seed, kReplayStream, 2 * place).next_u64();
      q.stop_ids = {*m_.tokenizer->eos()};
      q.reuse = Reuse::kExact;
      q.cancelled = stop_requested;
      requests.push_back(std::move(q));
    }
    std::vector<GenerateResult> written = engine_->run(std::move(requests));
    throw_if_stopped();
    HeldOutParts out;
    int64_t i = 0;
    for (const GenerateResult& g : written) {
      costs.tokens += static_cast<int64_t>(g.tokens.size());
      // A character may be cut at the end, or wrong bytes written.
      std::string text = utf8_lossy(m_.tokenizer->decode(g.tokens, true));
      bool held = ++i % kHeldOutEvery == 0;
      bool ends = g.finish == GenerateResult::Finish::kStop;
      // Text of several tokens: of fewer nothing is learned.
      if (text.size() >= 2) (held ? out.held_out : out.train).push_back({text, ends, 0, 0});
    }
    costs.ms = static_cast<int64_t>((monotonic_seconds() - t0) * 1e3);
    return out;
  }

  const ReplayFlags& f_;
  std::string folder_;
  int64_t room_;
  LoadedModel m_;
  std::vector<int32_t> begin_;
  std::optional<Engine> engine_;
};

HeldOutParts own_texts(const ReplayFlags& f, const std::string& model, const std::string& folder,
                       int64_t room, int64_t bytes, const DeviceFlags& device, TextsReport& r) {
  make_folder(folder + "/blocks");
  OwnTexts texts(f, model, folder, room, device);
  StopSignal stop;
  StatusLine line(20);
  HeldOutParts all;
  for (int64_t b = 0; bytes_of(all.train) < bytes; ++b) {
    HeldOutParts block;
    try {
      throw_if_stopped();
      block = texts.block(b, r);
    } catch (const Interrupted&) {
      r.stopped = true;
      return all;
    }
    if (bytes_of(block.train) < kLeastBytesOfBlock || block.held_out.empty())
      throw Error(model, "writes next to nothing by itself: there is nothing to repeat",
                  "give a corpus: --replay CORPUS, or learn without: --replay-share 0");
    for (auto [from, to] :
         {std::pair{&block.train, &all.train}, std::pair{&block.held_out, &all.held_out}})
      to->insert(to->end(), from->begin(), from->end());
    line.update(fmt::format("the model's own text: {} of {}",
                            human_bytes(static_cast<double>(bytes_of(all.train))),
                            human_bytes(static_cast<double>(bytes))));
  }
  line.finish("");
  return all;
}

}  // namespace

void DocumentsFlags::add(CLI::App* sub) {
  sub->add_option("--seq", seq, "tokens of an example (0: 1024, or the model's longest)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sub->add_option("--held-out", held_out, "share of the text that nothing is learned of")
      ->check(CLI::Range(0.001, 0.5))
      ->capture_default_str();
  sub->add_option("--seed", seed, "")->capture_default_str();
}

void ReplayFlags::add(CLI::App* sub) {
  texts.add(sub);
  sub->add_option("--corpus", corpus, "what is repeated (none: the model's own samples)");
  sub->add_option("--share", share, "of the text that is learned")
      ->check(CLI::Range(0.001, 0.9))
      ->capture_default_str();
  sub->add_option("--temperature", temperature, "of the model's own samples")
      ->check(CLI::Range(0.1, 2.0))
      ->capture_default_str();
}

TextsReport documents_job(const DocumentsFlags& f, const std::string& model,
                          const std::vector<std::string>& data, const std::string& folder) {
  double t0 = monotonic_seconds();
  ModelReader reader = reader_of(model);
  StopSignal stop;
  TextsReport r;
  std::vector<TextPart> parts =
      read_text_parts(list_corpus(data), reader.tokenizer, room_of(f, reader.longest), [&] {
        r.stopped = stop.requested();
        return !r.stopped;
      });
  if (r.stopped) return r;
  if (parts.empty())
    throw Error(names_of(data), "holds no text", "give .txt, .md or .jsonl files with some");
  write_parts(folder, hold_out(std::move(parts), f.held_out, names_of(data)), r);
  r.seconds = monotonic_seconds() - t0;
  log_info("{} parts, {} to learn, {} held out", r.parts, human_bytes(static_cast<double>(r.bytes)),
           human_bytes(static_cast<double>(r.held_out_bytes)));
  return r;
}

TextsReport replay_job(const ReplayFlags& f, const std::string& model,
                       const std::vector<std::string>& data, const std::string& folder,
                       const DeviceFlags& device) {
  double t0 = monotonic_seconds();
  ModelReader reader = reader_of(model);
  int64_t room = room_of(f.texts, reader.longest);
  auto beside = static_cast<double>(text_bytes(data));
  auto bytes = static_cast<int64_t>(std::ceil(beside * f.share / (1 - f.share)));
  TextsReport r;
  HeldOutParts parts;
  if (f.corpus.empty()) {
    device.apply();
    parts = own_texts(f, model, folder, room, bytes, device, r);
    if (r.stopped) return r;
  } else {
    StopSignal stop;
    // What is held out comes on top.
    auto all = static_cast<int64_t>(static_cast<double>(bytes) / (1 - f.texts.held_out)) + 1;
    std::vector<TextPart> sampled =
        sample_text_parts(list_corpus({f.corpus}), reader.tokenizer, room, all, [&] {
          r.stopped = stop.requested();
          return !r.stopped;
        });
    if (r.stopped) return r;
    if (bytes_of(sampled) < all)
      log_warn("{} has {} of the {} that {:g} of what is learned would be", f.corpus,
               human_bytes(static_cast<double>(bytes_of(sampled))),
               human_bytes(static_cast<double>(all)), f.share);
    parts = hold_out(std::move(sampled), f.texts.held_out, f.corpus);
  }
  write_parts(folder, parts, r);
  if (!f.corpus.empty()) r.seconds = monotonic_seconds() - t0;
  return r;
}

}  // namespace wels
