#include "apps/sft_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <filesystem>

#include "apps/loaded_model.h"
#include "apps/model_folder.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "data/hash.h"
#include "engine/engine.h"
#include "formats/hf_config.h"
#include "model/checkpoint.h"
#include "text/gguf_vocab.h"
#include "text/markers.h"
#include "train/presets.h"

namespace wels {
namespace {

constexpr int64_t kSampleTokens = 200;

bool speaks_v31(const Tokenizer& t) {
  for (std::string_view mark :
       {kBosMark, kEosMark, kUserMark, kAssistantMark, kThinkBegin, kThinkEnd}) {
    if (!t.find(mark)) return false;
  }
  return true;
}

// The template that the flag names, or the folder's own; a folder without one gets ours if its
// vocabulary has the marks.
void choose_template(const std::string& name, SftModel& m) {
  if (name == "none") return;
  std::optional<ChatTemplate> own = m.folder.empty() ? std::nullopt : find_chat_template(m.folder);
  if (name != "auto") {
    m.chat_template = chat_template_by_name(name);
  } else if (own) {
    m.chat_template = own;
  } else if (speaks_v31(*m.tokenizer)) {
    m.chat_template = ChatTemplate::kDeepSeekV31;
  } else {
    throw Error(m.folder.empty() ? "--tokenizer" : m.folder,
                "has no chat template, and its tokenizer lacks the tokens of deepseek-v3.1",
                "--template none: plain texts, for base models");
  }
  if (own) {
    if (own != m.chat_template)
      log_warn("{} states another chat template than {}: name it to chat as well (--template)",
               m.folder, name);
  } else if (m.chat_template == ChatTemplate::kDeepSeekV31) {
    m.files["chat_template.jinja"] = chat_template_jinja();
  } else {
    log_warn(
        "the checkpoints will not state the chat template: name it to chat as well "
        "(--template {})",
        name);
  }
}

// Documents begin as chats do, and as those of its checkpoints will, whose tokenizer is this source
// beside a chat template (Tokenizer::load).
void begin_as_checkpoints(VocabSource source, SftModel& m) {
  if (m.files.contains("chat_template.jinja") && begin_as_chats(source))
    m.tokenizer.emplace(std::move(source));
}

SftModel new_model(const SftModelFlags& f, const SftDataFlags& data, const std::string& out,
                   uint64_t seed) {
  if (f.lora.rank > 0) throw Error("--lora", "a new model has nothing to adapt", "leave it out");
  SftModel m;
  PresetSettings p = preset(f.preset.empty() ? "nano" : f.preset);
  m.about = f.preset.empty() ? f.config : "preset " + f.preset;
  m.learning_rate = p.learning_rate;
  m.config = f.config.empty() ? p.model : load_hf_config(f.config);
  // Few hundred steps: from the presets' 0.02 attention stays even for most of them (parity of 20
  // bits is learned after 80 steps instead of more than 300, docs/log.md).
  if (f.config.empty())
    m.config.initializer_range = 1 / std::sqrt(static_cast<double>(m.config.hidden_size));
  if (f.mtp >= 0) m.config.num_nextn_predict_layers = f.mtp;
  if (f.dense) make_dense(m.config);
  std::optional<RunStart> start = find_run_start(out);
  std::string json = start ? start->tokenizer_json
                     : !f.tokenizer.empty()
                         ? write_tokenizer_json(load_vocab_source(f.tokenizer))
                         : learn_tokenizer(data, f.vocab > 0 ? f.vocab : m.config.vocab_size, seed);
  m.files["tokenizer.json"] = json;
  VocabSource source = parse_tokenizer_json(json, out + "/tokenizer.json");
  m.tokenizer.emplace(source);
  if (f.config.empty()) {
    m.config.vocab_size = m.tokenizer->vocab_size();
  } else if (m.tokenizer->vocab_size() > m.config.vocab_size) {
    throw Error(f.config,
                fmt::format("vocab_size {} is smaller than the tokenizer's {}", m.config.vocab_size,
                            m.tokenizer->vocab_size()),
                "raise vocab_size or use a smaller --vocab");
  }
  m.config.bos_token_id = m.tokenizer->bos() ? *m.tokenizer->bos() : -1;
  if (m.tokenizer->eos()) m.config.eos_token_ids = {*m.tokenizer->eos()};
  choose_template(f.chat_template, m);
  begin_as_checkpoints(std::move(source), m);
  return m;
}

}  // namespace

void SftModelFlags::add_template(CLI::App* sub) {
  std::string names = "auto (the model's own, else deepseek-v3.1), none (plain texts)";
  for (const ChatTemplateName& t : chat_template_names()) names += std::string(", ") + t.name;
  sub->add_option("--template", chat_template, names)->capture_default_str();
}

void SftModelFlags::add(CLI::App* sub) {
  sub->add_option("--preset", preset, "a new model: nano, micro, mini, small, base");
  sub->add_option("--config", config, "a new model: its config.json")->check(CLI::ExistingFile);
  sub->add_option("--tokenizer", tokenizer,
                  "a new model: a tokenizer.json (default: one learned from the examples, every "
                  "digit a token)");
  sub->add_option("--vocab", vocab, "a new model: tokens to learn at most (0: the preset's)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--mtp", mtp, "a new model: MTP modules (default: the preset's 1)")
      ->check(CLI::Range(0, 8));
  sub->add_flag("--dense", dense, "a new model: the dense one of equal active FLOPs");
  add_template(sub);
  add_lora(sub);
}

void SftModelFlags::add_lora(CLI::App* sub) {
  sub->add_option("--lora", lora.rank,
                  "train adapters of this rank only; the model stays as it is stored, also "
                  "quantised (0: train all of it)")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  sub->add_option("--lora-alpha", lora_alpha, "adapters count alpha / rank times (0: 2 rank)")
      ->check(CLI::NonNegativeNumber);
  sub->add_option("--lora-targets", lora.targets,
                  "matrices with adapters, separated by commas: q_proj,o_proj,... (default: all of "
                  "attention and of dense and shared feed-forward parts; never routed experts)")
      ->delimiter(',');
}

namespace {

void open_folder(SftModel& m) {
  m.config = load_hf_config(m.folder);
  m.files = files_beside_weights(m.folder);
  if (!m.files.contains("tokenizer.json"))
    throw Error(m.folder, "has no tokenizer.json",
                "copy the model's tokenizer.json into the folder");
  m.tokenizer.emplace(Tokenizer::load(m.folder));
}

void open_gguf(SftModel& m) {
  if (!m.lora)
    throw Error(m.folder, "is a GGUF file, whose weights cannot be trained as they are",
                "train adapters over them: --lora 16");
  GgufCheckpoint file(m.folder);
  m.config = file.config();
  VocabSource source = parse_gguf_vocab(file.content());
  m.files["tokenizer.json"] = write_tokenizer_json(source);
  m.tokenizer.emplace(std::move(source));
  std::string jinja = load_chat_template(m.folder);
  if (!jinja.empty()) m.files["chat_template.jinja"] = jinja;
}

}  // namespace

SftModel open_checkpoint(const SftModelFlags& f) {
  SftModel m;
  bool one_file = std::filesystem::is_regular_file(f.path);
  m.folder = one_file ? f.path : resolve_whole_model(f.path);
  m.about = m.folder;
  if (f.lora.rank > 0) {
    m.lora = f.lora;
    m.lora->alpha = f.lora_alpha > 0 ? f.lora_alpha : 2 * static_cast<double>(f.lora.rank);
    m.lora->base = std::filesystem::absolute(m.folder).lexically_normal().string();
  }
  one_file ? open_gguf(m) : open_folder(m);
  if (m.tokenizer->vocab_size() > m.config.vocab_size) {
    throw Error(m.folder,
                fmt::format("the tokenizer has {} tokens, the model's embedding {}",
                            m.tokenizer->vocab_size(), m.config.vocab_size),
                "use the tokenizer the model was trained with");
  }
  choose_template(f.chat_template, m);
  if (m.tokenizer->document_begin() != m.tokenizer->bos())
    begin_as_checkpoints(load_vocab_source(m.folder), m);
  return m;
}

SftModel open_sft_model(const SftModelFlags& f, const SftDataFlags& data, const std::string& out,
                        uint64_t seed) {
  return f.is_new() ? new_model(f, data, out, seed) : open_checkpoint(f);
}

void load_sft_model(SftModel& m, uint64_t seed) {
  if (m.folder.empty()) {
    m.model = std::make_unique<Model>(m.config);
    m.model->init(DType::kF32, seed, true);
  } else if (!m.lora) {
    m.model = load_model(m.folder, WeightStorage::kF32);
    m.model->make_gradients();
  } else {
    if (std::filesystem::is_regular_file(m.folder)) {
      auto file = std::make_shared<GgufCheckpoint>(m.folder);
      m.model = std::make_unique<Model>(file->config());
      load_weights(*m.model, file, WeightStorage::kMapped);
    } else {
      m.model = load_model(m.folder, WeightStorage::kMapped);
    }
    add_lora(*m.model, *m.lora, DType::kF32, seed);
  }
}

std::string describe(SftModel& m) {
  ParameterCount n = count_parameters(m.config);
  std::string out = fmt::format("{}: {} parameters, {} active", m.about,
                                human_count(static_cast<double>(n.total + n.mtp)),
                                human_count(static_cast<double>(n.active)));
  if (m.lora)
    out += fmt::format(", {} in adapters", human_count(static_cast<double>(count_lora(*m.model))));
  return out;
}

void require_adaptable(const StageSettings& s, const SftModel& m) {
  if (!m.lora) return;
  auto refuse = [](bool wrong, const char* flag, const char* what) {
    if (wrong) throw Error(flag, what, "leave it out, or --lora");
  };
  refuse(s.ema > 0, "--ema", "averages whole models, not adapters");
  refuse(s.trainer.bias_update > 0, "--bias-update",
         "moves the router of the model, which stays as it is under --lora");
}

void check_adapters(const LoraConfig& lora, const StageFlags& f, StageSettings s) {
  if (lora.rank == 0) return;
  SftModel m;
  m.lora = lora;
  s.trainer.bias_update = f.bias_update;
  require_adaptable(s, m);
}

nlohmann::json model_settings(SftModel& m) {
  nlohmann::json out = nlohmann::json::object();
  if (!m.folder.empty()) {
    // The beginning of every matrix tells models apart.
    uint64_t hash = 0;
    visit_weights(m.config, m.model->weights(), [&](Weight& w, const WeightSpec&) {
      for (const Tensor& t : w.value) {
        auto bytes = static_cast<size_t>(std::min<int64_t>(row_bytes(t.dtype, t.cols), 4096));
        hash = hash_bytes({static_cast<const char*>(t.data), bytes}, hash);
      }
    });
    out["start"] = fmt::format("{:016x}", hash);
  }
  if (m.lora) {
    out["lora_rank"] = m.lora->rank;
    out["lora_alpha"] = m.lora->alpha;
    out["lora_targets"] = fmt::format("{}", fmt::join(m.lora->targets, ","));
  }
  return out;
}

CheckpointParts checkpoint_parts(SftModel& m) {
  if (!m.lora) return whole_model(*m.model, m.files);
  auto save = [&m](const std::string& folder) {
    save_lora(folder, *m.model, *m.lora);
    write_file_atomic(folder + "/config.json", to_hf_config(m.config));
  };
  auto load = [&m](const std::string& folder) { load_lora(folder, *m.model); };
  return {save, load, m.files};
}

std::string answer_now(Device& dev, SftModel& m, DType dtype, const TrainingTokens& e) {
  size_t prompt = e.ids.size();
  while (prompt > 0 && e.learned[prompt - 1] != 0) --prompt;
  GenerateRequest r;
  r.prompt.assign(e.ids.begin(), e.ids.begin() + static_cast<std::ptrdiff_t>(prompt));
  int64_t room = m.config.max_position_embeddings - static_cast<int64_t>(prompt);
  r.max_new_tokens = std::min(kSampleTokens, room);
  if (prompt == 0 || r.max_new_tokens < 1) return {};
  r.sampling.temperature = 0;
  if (m.tokenizer->eos()) r.stop_ids = {*m.tokenizer->eos()};
  Engine engine(dev, *m.model, dtype, static_cast<int64_t>(prompt) + r.max_new_tokens);
  std::string asked = m.tokenizer->decode(r.prompt);
  return asked + m.tokenizer->decode(engine.run({std::move(r)})[0].tokens);
}

}  // namespace wels
