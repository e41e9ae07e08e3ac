#include "formats/json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/check.h"
#include "base/error.h"

namespace wels {

std::string printable(std::string_view text) {
  constexpr size_t kMost = 120;
  std::string out;
  for (unsigned char c : text.substr(0, kMost)) {
    if (c < 0x20 || c == 0x7f) {
      out += '?';
    } else {
      out += static_cast<char>(c);
    }
  }
  // The JSON library replaces broken UTF-8; the quotes and backslashes it adds are taken off again.
  std::string quoted =
      nlohmann::json(out).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  out.clear();
  for (size_t i = 1; i + 1 < quoted.size(); ++i) {
    if (quoted[i] == '\\') ++i;
    out += quoted[i];
  }
  return text.size() > kMost ? out + "..." : out;
}

namespace {

// The library's "[json.exception.parse_error.101] parse error at line 1, column 8: syntax error
// while parsing value - invalid literal; ..." as " at column 8: invalid literal; ...".
std::string reason_of(std::string_view what) {
  auto drop_to = [&](std::string_view mark) {
    size_t at = what.find(mark);
    if (at != what.npos) what.remove_prefix(at + mark.size());
    return at != what.npos;
  };
  drop_to("] ");
  std::string place;
  if (drop_to("parse error at ")) {
    size_t end = what.find(": ");
    place = " at " + std::string(what.substr(0, end));
    if (place.starts_with(" at line 1, ")) place.replace(0, 12, " at ");
    drop_to(": ");
    if (what.starts_with("syntax error while parsing")) drop_to(" - ");
  }
  return place + ": " + printable(what);
}

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& where) {
  using nlohmann::json;
  constexpr int kDeepest = 64;
  std::vector<std::set<std::string>> keys;  // of the objects that are open, outermost first
  auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
        keys.emplace_back();
        [[fallthrough]];
      case json::parse_event_t::array_start:
        if (depth >= kDeepest)
          throw Error(where, fmt::format("JSON nested deeper than {}", kDeepest));
        break;
      case json::parse_event_t::object_end:
        keys.pop_back();
        break;
      case json::parse_event_t::key:
        if (!keys.back().insert(parsed.get<std::string>()).second) {
          throw Error(where, fmt::format("key \"{}\" appears twice in one JSON object",
                                         printable(parsed.get_ref<const std::string&>())));
        }
        break;
      default:
        break;
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), check);
  } catch (const json::exception& e) {
    throw Error(where, "not valid JSON" + reason_of(e.what()));
  }
}

namespace {

// Fills an ordered object in the text's order. The library's own parser looks through all keys of
// an object for each new one, which strangers could make last for minutes.
class OrderedBuilder final : public nlohmann::json_sax<nlohmann::ordered_json> {
 public:
  using Json = nlohmann::ordered_json;
  explicit OrderedBuilder(Json& root) : root_(root) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool v) override { return put(v); }
  bool number_integer(number_integer_t v) override { return put(v); }
  bool number_unsigned(number_unsigned_t v) override { return put(v); }
  bool number_float(number_float_t v, const string_t&) override { return put(v); }
  bool string(string_t& v) override { return put(std::move(v)); }
  bool binary(binary_t& v) override { return put(std::move(v)); }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& v) override {
    key_ = std::move(v);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const Json::exception&) override {
    return false;
  }

 private:
  Json* place(Json v) {
    if (open_.empty()) return &(root_ = std::move(v));
    Json& in = *open_.back();
    if (in.is_array()) {
      in.push_back(std::move(v));
      return &in.back();
    }
    auto& members = static_cast<Json::object_t::Container&>(*in.get_ptr<Json::object_t*>());
    members.emplace_back(std::move(key_), std::move(v));
    return &members.back().second;
  }
  bool put(Json v) {
    place(std::move(v));
    return true;
  }
  // What holds an open container does not grow until it is closed, so the pointer stays good.
  bool open(Json v) {
    open_.push_back(place(std::move(v)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }
  Json& root_;
  std::vector<Json*> open_;
  std::string key_;
};

}  // namespace

nlohmann::ordered_json parse_ordered_json(std::string_view text, const std::string& where) {
  parse_json(text, where);
  nlohmann::ordered_json out;
  OrderedBuilder builder(out);
  CHECK(nlohmann::ordered_json::sax_parse(text.begin(), text.end(), &builder));
  return out;
}

}  // namespace wels
