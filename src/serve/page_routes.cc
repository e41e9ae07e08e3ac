// The routes of the page (page.h) beside those of the API that it speaks.
#include "base/version.h"
#include "serve/api_call.h"
#include "serve/api_error.h"
#include "serve/json_body.h"
#include "serve/page.h"

namespace wels {

void Api::page(Call& call) { answer(call, page_response(call.request)); }

void Api::page_config(Call& call) {
  Json models = Json::array();
  for (const std::string& name : model_.names())
    models.push_back({{"id", name}, {"thinking", name == "deepseek-reasoner"}});
  const ModelConfig& c = model_.model().config();
  Json prices;
  if (accounts_) {
    const Prices& p = accounts_->prices();
    prices = {{"hit", p.hit}, {"miss", p.miss}, {"output", p.output}, {"currency", p.currency}};
  }
  Json out{{"version", version()},
           {"mode", "chat"},
           {"models", models},
           {"name", model_.name()},
           {"context", model_.context()},
           {"auth", accounts_ != nullptr},
           {"search", false},
           {"prices", prices},
           {"inside", true},
           {"experts", c.n_routed_experts}};
  answer_json(call, out.dump());
}

void Api::keep_trace(const Call& call, Generation& g) {
  if (g.job().trace_id.empty()) return;
  Trace trace = g.take_trace();
  trace.model = model_.name();
  traces_.add(g.job().trace_id, call.scope, std::move(trace));
}

void Api::inside(Call& call) {
  bool beta = false;
  std::string id = local_path(call.request.path, beta).substr(std::string("/ui/inside/").size());
  std::shared_ptr<const Trace> trace = traces_.find(id, call.scope);
  if (!trace) return answer(call, empty_response(404));
  answer_json(call, trace_json(id, *trace, model_.model().config(), model_.tokenizer()));
}

}  // namespace wels
