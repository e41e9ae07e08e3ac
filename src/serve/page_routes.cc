// The routes of the page (page.h) beside those of the API that it speaks.
#include "base/version.h"
#include "serve/api_call.h"
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

}  // namespace wels
