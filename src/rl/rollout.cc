#include "rl/rollout.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/machine.h"

namespace wels {
namespace {

constexpr int64_t kPageRows = KvCache::kPageRows;

// Moves on whenever any weight does.
uint64_t version_of(Model& model) {
  uint64_t sum = 0;
  visit_weights(model.config(), model.weights(), [&](Weight& w, const WeightSpec&) {
    sum += w.version;
    if (w.lora) sum += w.lora->down.version + w.lora->up.version;
  });
  return sum;
}

int64_t whole_pages(int64_t rows) { return (rows + kPageRows - 1) / kPageRows * kPageRows; }

}  // namespace

bool is_long(const Rollout& r) {
  return r.parts.thought.find_first_not_of(" \t\r\n") != std::string::npos;
}

RolloutSampler::RolloutSampler(Device& dev, Model& model, const Tokenizer& tokenizer,
                               RolloutSettings settings)
    : dev_(dev), model_(model), tokenizer_(tokenizer), settings_(settings) {
  if (tokenizer.eos()) stop_ids_.push_back(*tokenizer.eos());
  for (int32_t id : model.config().eos_token_ids) {
    if (std::find(stop_ids_.begin(), stop_ids_.end(), id) == stop_ids_.end())
      stop_ids_.push_back(id);
  }
  begun_ = begun_answer(render("")).find(kThinkBegin) != std::string::npos;
  if (stop_ids_.empty())
    throw Error("tokenizer.json", "has no end-of-text token: answers would never end",
                "use a tokenizer with <｜end▁of▁sentence｜>");
  think_ = think_budget(tokenizer, settings_.think);
  think_.stop_ids = stop_ids_;
}

RolloutSampler::~RolloutSampler() = default;

ChatText RolloutSampler::render(std::string_view question) const {
  std::vector<ChatMessage> messages(1);
  messages[0].role = "user";
  messages[0].content = std::string(question);
  return render_chat(settings_.chat_template, messages, {.thinking = settings_.thinking});
}

std::vector<int32_t> RolloutSampler::prompt(std::string_view question) const {
  ChatText text = render(question);
  require_markers(text, tokenizer_, "tokenizer.json");
  std::vector<int32_t> ids = chat_to_tokens(text, tokenizer_);
  int64_t room = model_.config().max_position_embeddings, length = static_cast<int64_t>(ids.size());
  if (length + settings_.max_tokens + 1 > room) {
    throw Error("--max-tokens",
                fmt::format("a prompt of {} tokens and {} new ones are beyond the model's {} "
                            "positions",
                            length, settings_.max_tokens, room),
                fmt::format("use {} or less", std::max<int64_t>(room - length - 1, 1)));
  }
  return ids;
}

bool RolloutSampler::has_room(std::string_view question) const {
  auto length = static_cast<int64_t>(chat_to_tokens(render(question), tokenizer_).size());
  return length + settings_.max_tokens + 1 <= model_.config().max_position_embeddings;
}

// An engine for the longest prompt, with pages for everybody at once where memory allows: the more
// answer in one step, the better its products are used. Results don't depend on it.
void RolloutSampler::make_room(const Draw& draw) {
  int64_t longest = 1, all = 0;
  for (const auto& p : draw.prompts) {
    int64_t rows = static_cast<int64_t>(p.size());
    longest = std::max(longest, rows);
    all += draw.samples * whole_pages(rows + settings_.max_tokens + 1) + whole_pages(rows);
  }
  CacheOptions cache{.rows = settings_.exact ? MlaRows::kExpanded : MlaRows::kLatent};
  int64_t per_token = kv_token_bytes(model_.config(), settings_.dtype, cache.rows);
  int64_t most = std::max<int64_t>(memory_available_bytes() / 4 / per_token, kPageRows);
  int64_t context = longest + settings_.max_tokens + 1;
  int64_t tokens = std::max(std::min(all, most), whole_pages(context));
  if (engine_ && context <= context_ && tokens <= cache_tokens_) return;
  engine_.reset();
  context_ = std::max(context, context_);
  cache_tokens_ = cache.tokens = tokens;
  engine_ = std::make_unique<Engine>(dev_, model_, settings_.dtype, context_, cache);
  weights_version_ = version_of(model_);
}

GenerateRequest RolloutSampler::request(const Draw& draw, int64_t prompt, int64_t sample) const {
  GenerateRequest r;
  r.prompt = draw.prompts[static_cast<size_t>(prompt)];
  r.max_new_tokens = settings_.max_tokens;
  r.sampling.temperature = draw.temperature;
  r.sampling.top_p = draw.temperature > 0 ? settings_.top_p : 1;
  r.sampling.top_k = draw.temperature > 0 ? settings_.top_k : 0;
  r.sampling.min_p = draw.temperature > 0 ? settings_.min_p : 0;
  r.sampling.tell_kept = draw.temperature > 0 && settings_.filtered();
  if (settings_.keep_routing && model_.config().n_routed_experts > 0)
    r.trace_rows = static_cast<int64_t>(r.prompt.size()) + settings_.max_tokens;
  if (draw.seed) r.sampling.seed = draw.seed(prompt, sample);
  // The end of the text is an action like any other, so it is taken as a token.
  r.on_token = [this](const SampledToken& t) {
    return std::find(stop_ids_.begin(), stop_ids_.end(), t.id) == stop_ids_.end();
  };
  r.cancelled = settings_.stop;
  r.reuse = Reuse::kExact;  // the same bits with any number of siblings
  r.scope = std::to_string(prompt);
  r.speculate = settings_.speculate;
  bound_thought(r, think_, begun_, model_.config().vocab_size);
  return r;
}

// The prompts alone, so that all completions find them in the cache.
std::vector<GenerateResult> RolloutSampler::compute_prompts(const Draw& draw) {
  std::vector<GenerateRequest> requests;
  for (size_t i = 0; i < draw.prompts.size(); ++i) {
    requests.push_back(request(draw, static_cast<int64_t>(i), 0));
    requests.back().max_new_tokens = 0;
  }
  return engine_->run(std::move(requests));
}

// prompt_experts: of the rows that the completion found in the cache.
Rollout RolloutSampler::rollout(GenerateResult result,
                                std::span<const int16_t> prompt_experts) const {
  Rollout out;
  out.tokens = std::move(result.tokens);
  out.logp = std::move(result.logp);
  out.experts = std::move(result.experts);
  for (size_t i = 0; i < std::min(prompt_experts.size(), out.experts.size()); ++i) {
    if (out.experts[i] < 0) out.experts[i] = prompt_experts[i];
  }
  size_t words = static_cast<size_t>(model_.config().vocab_size + 31) / 32;
  out.kept.resize(result.kept.size() * words);
  for (size_t i = 0; i < result.kept.size(); ++i) {
    for (int32_t id : result.kept[i])
      out.kept[i * words + static_cast<size_t>(id) / 32] |= static_cast<int32_t>(1u << (id % 32));
  }
  out.ended = !out.tokens.empty() &&
              std::find(stop_ids_.begin(), stop_ids_.end(), out.tokens.back()) != stop_ids_.end();
  std::span<const int32_t> text = out.tokens;
  if (out.ended) text = text.first(text.size() - 1);
  out.parts = parse_completion(tokenizer_.decode(text), begun_);
  return out;
}

std::vector<Rollout> RolloutSampler::sample(const Draw& draw) {
  make_room(draw);
  // What the cache holds of earlier calls has no experts to tell.
  if (uint64_t now = version_of(model_); now != weights_version_ || settings_.keep_routing) {
    engine_->forget_prefixes();
    weights_version_ = now;
  }
  GenerateTiming before = engine_->timing();
  std::vector<GenerateResult> prompts;
  if (draw.samples > 1) prompts = compute_prompts(draw);
  std::vector<GenerateRequest> requests;
  for (size_t i = 0; i < draw.prompts.size(); ++i) {
    for (int64_t k = 0; k < draw.samples; ++k)
      requests.push_back(request(draw, static_cast<int64_t>(i), k));
  }
  std::vector<GenerateResult> results = engine_->run(std::move(requests));
  bool stopped = settings_.stop && settings_.stop();
  std::vector<Rollout> out;
  for (GenerateResult& r : results) {
    auto place = static_cast<int64_t>(out.size());
    int64_t prompt = place / draw.samples;
    bool given_up = r.finish == GenerateResult::Finish::kCancelled;  // or the end-of-text token
    out.push_back(rollout(
        std::move(r), prompts.empty() ? std::span<const int16_t>()
                                      : std::span(prompts[static_cast<size_t>(prompt)].experts)));
    if (stopped && draw.rescued && (out.back().ended || !given_up))
      draw.rescued(prompt, place % draw.samples, out.back());
  }
  if (stopped) throw Interrupted();
  drawn_tokens_ = 0;
  for (const auto& p : draw.prompts) drawn_tokens_ += static_cast<int64_t>(p.size());
  for (const Rollout& r : out) drawn_tokens_ += static_cast<int64_t>(r.tokens.size());
  timing_ = engine_->timing() - before;
  return out;
}

}  // namespace wels
