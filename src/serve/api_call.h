// The inside of the Api: one request in the hands of a worker, and the table of routes.
#pragma once
#include "serve/api.h"

namespace wels {

struct Api::Call {
  HttpRequest request;
  std::shared_ptr<HttpExchange> exchange;
  const Route* route;
  bool beta = false;
  std::optional<Accounts::Caller> caller;
  std::string scope;  // whose cache and turn
};

struct Api::Route {
  const char* method;
  const char* path;  // without /v1 and /beta; "/models/" also stands for what is below
  Auth auth;
  void (Api::*run)(Call& call);
  const char* summary;
  const char* fields;      // of the body, for the description: "name:type", with ! where required
  bool anthropic = false;  // errors are written that way
};

}  // namespace wels
