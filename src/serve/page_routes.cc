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
  for (const std::string& name : models_.names())
    models.push_back({{"id", name}, {"thinking", name == kReasonerName || name == kFlashName}});
  const ModelConfig& c = models_.config();
  Json prices;
  if (accounts_) {
    const Prices& p = accounts_->prices();
    prices = {{"hit", p.hit}, {"miss", p.miss}, {"output", p.output}, {"currency", p.currency}};
  }
  Json out{{"version", version()},
           {"mode", "chat"},
           {"models", models},
           {"name", models_.first_name()},
           {"context", models_.context()},
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
  trace.model = call.pin->model->name();
  trace.config = call.pin->model->model().config();
  trace.tokenizer = call.pin->model->tokenizer();
  traces_.add(g.job().trace_id, call.scope, std::move(trace));
}

void Api::inside(Call& call) {
  bool beta = false;
  std::string id = local_path(call.request.path, beta).substr(std::string("/ui/inside/").size());
  std::shared_ptr<const Trace> trace = traces_.find(id, call.scope);
  if (!trace) throw not_found("There is no such answer among the last that were watched");
  answer_json(call, trace_json(id, *trace));
}

void Api::runs(Call& call) {
  if (!runs_) return answer(call, empty_response(404));
  bool beta = false;
  call.request.path = local_path(call.request.path, beta);
  std::optional<HttpResponse> r = runs_->respond(call.request, call.exchange);
  if (r) return answer(call, std::move(*r));
  metrics_.answered(call.route->path, 200);
}

}  // namespace wels
