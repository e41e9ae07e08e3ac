#include "apps/sft_model.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "apps/loaded_model.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/hf_config.h"
#include "model/checkpoint.h"
#include "train/presets.h"
#include "train/run_folder.h"

namespace wels {
namespace {

constexpr const char* kCompanions[] = {"tokenizer_config.json", "chat_template.jinja",
                                       "special_tokens_map.json", "generation_config.json"};

bool speaks_v31(const Tokenizer& t) {
  for (const char* mark : {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>",
                           "<｜Assistant｜>", "<think>", "</think>"}) {
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

SftModel new_model(const SftModelFlags& f, const SftDataFlags& data, const std::string& out,
                   uint64_t seed) {
  SftModel m;
  PresetSettings p = preset(f.preset.empty() ? "nano" : f.preset);
  m.about = f.preset.empty() ? f.config : "preset " + f.preset;
  m.learning_rate = p.learning_rate;
  m.config = f.config.empty() ? p.model : load_hf_config(f.config);
  if (f.mtp >= 0) m.config.num_nextn_predict_layers = f.mtp;
  if (f.dense) make_dense(m.config);
  // Of 0.02 nano does not learn the chain of 20 bits of parity in 400 steps, of this in 350.
  if (f.config.empty() && !data.task.empty())
    m.config.initializer_range = 0.5 / std::sqrt(static_cast<double>(m.config.hidden_size));
  std::optional<RunStart> start = find_run_start(out);
  std::string json = start ? start->tokenizer_json
                     : !f.tokenizer.empty()
                         ? write_tokenizer_json(load_vocab_source(f.tokenizer))
                         : learn_tokenizer(data, f.vocab > 0 ? f.vocab : m.config.vocab_size, seed);
  m.files["tokenizer.json"] = json;
  m.tokenizer.emplace(Tokenizer::from_json(json, out + "/tokenizer.json"));
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
}

SftModel open_checkpoint(const SftModelFlags& f) {
  SftModel m;
  m.folder = resolve_checkpoint(f.path);
  m.about = m.folder;
  m.config = load_hf_config(m.folder);
  std::string path = m.folder + "/tokenizer.json";
  if (!std::filesystem::exists(path))
    throw Error(m.folder, "has no tokenizer.json",
                "copy the model's tokenizer.json into the folder");
  m.files["tokenizer.json"] = read_file(path);
  for (const char* name : kCompanions) {
    std::string companion = m.folder + "/" + name;
    if (std::filesystem::exists(companion)) m.files[name] = read_file(companion);
  }
  m.tokenizer.emplace(Tokenizer::load(m.folder));
  if (m.tokenizer->vocab_size() > m.config.vocab_size) {
    throw Error(path,
                fmt::format("has {} tokens, the model's embedding {}", m.tokenizer->vocab_size(),
                            m.config.vocab_size),
                "use the tokenizer the model was trained with");
  }
  choose_template(f.chat_template, m);
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
    return;
  }
  m.model = load_model(m.folder, WeightStorage::kF32);
  m.model->make_gradients();
}

}  // namespace wels
